package scenario

// Table is all scenarios, in the order in which they are run and shown.
func Table(size Size) []Scenario {
	return []Scenario{
		drain(size), bulkMail(size), enqueue(size), idle(size), saturated(size), distance(size),
		sameAttachment(size), bigMails(size), fleet(size), cluster(size),
	}
}
