package scenario

import "github.com/mailpouch/mailpouch/bench/harness"

// Table is all scenarios, in the order in which they are run and shown.
func Table(size Size) []Scenario {
	return []Scenario{
		drain(size, harness.AppendOnly), drain(size, harness.MemoryOnly),
		bulkMail(size, harness.AppendOnly), bulkMail(size, harness.MemoryOnly),
		enqueue(size, harness.AppendOnly), enqueue(size, harness.MemoryOnly), intake(size), waitingMail(size),
		idle(size), saturated(size), distance(size), growth(size), chunkingServer(size),
		sameAttachment(size), bigMails(size), keeping(size), fleet(size), cluster(size),
	}
}
