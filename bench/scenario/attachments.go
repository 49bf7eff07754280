package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func sameAttachment(size Size) Scenario {
	n := size.of(1000, 40)
	content := noise(1<<20, 0)
	return Scenario{
		Name:    "attachment",
		Title:   "The same attachment many times",
		About:   fmt.Sprintf("%s mails, each with the same attachment of 1 MB. The usual payload carries it as base64, once in each task.", report.Number(float64(n))),
		Metrics: metrics(rate, "redis_mb", worker, server, memory),
		Rounds:  2,
		Entries: []Entry{
			{nameWorker, true, emptying{mails: n, start: workers(1), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				attached(b, r, n, func(int) []byte { return content })
			}}.measure},
			{nameNetSMTP, false, emptying{mails: n, start: peer("netsmtp", peerConnections), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueAttached(b, r, n, func(int) []byte { return content })
			}}.measure},
		},
	}
}

func bigMails(size Size) Scenario {
	n := size.of(500, 20)
	const bytes = 10_000_000
	different := func(i int) []byte { return noise(bytes, uint64(i)+1) } //nolint:gosec // a small number
	return Scenario{
		Name:    "big",
		Title:   "Mails of 10 MB",
		About:   fmt.Sprintf("%d mails, each with an attachment of 10 MB that no other has; the usual handler gets a fifth as many.", n),
		Metrics: metrics(memory, rate, "redis_mb"),
		Rounds:  1,
		Entries: []Entry{
			{nameBig, true, emptying{mails: n, start: workers(1), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				attached(b, r, n, different)
			}}.measure},
			{nameNetSMTP, false, emptying{mails: n / 5, start: peer("netsmtp", peerConnections), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueAttached(b, r, n, different)
			}}.measure},
		},
	}
}

// few is how many goroutines hand over what is big.
const few = 4

func attached(b *harness.Bench, r *harness.Redis, n int, content func(i int) []byte) {
	q := newQueue(r)
	parallel(b, few, n, func(i int) error {
		m := message(i)
		m.Attach("data.bin", content(i), "application/octet-stream")
		_, err := q.Enqueue(b.Context(), m)
		return err
	})
}

func enqueueAttached(b *harness.Bench, r *harness.Redis, n int, content func(i int) []byte) {
	enqueueBaseline(b, r, n, few, func(i int) baseline.Mail {
		m := baselineMail(i)
		m.Attachment = content(i)
		return m
	})
}
