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
		Name:    sameName,
		Title:   "The same attachment many times",
		About:   fmt.Sprintf("%s mails, each with the same attachment of 1 MB. The usual payload carries it as base64, once in each task.", report.Number(float64(n))),
		Metrics: metrics(rate, filled, worker, server, memory),
		Rounds:  1,
		Entries: attaching(n, n, func(int) []byte { return content }),
	}
}

func bigMails(size Size) Scenario {
	n := size.of(150, 20)
	const bytes = 10_000_000
	return Scenario{
		Name:    bigName,
		Title:   "Mails of 10 MB",
		About:   fmt.Sprintf("%d mails, each with an attachment of 10 MB that no other has; the usual handler gets a fifth as many.", n),
		Metrics: metrics(memory, rate, filled),
		Rounds:  1,
		Entries: attaching(n, n/5, func(i int) []byte { return noise(bytes, uint64(i)+1) }), //nolint:gosec // a small number
	}
}

// attaching are a worker and the usual handler with so many mails that have attachments.
func attaching(n, usually int, content func(i int) []byte) []Entry {
	worker := ours(func(b *harness.Bench, r *harness.Redis, n int) { attached(b, r, n, content) }, connections(fewConnections))
	others := usual(netSMTP, manyConnections)
	others.fill = func(b *harness.Bench, r *harness.Redis, n int) { enqueueAttached(b, r, n, content) }
	return []Entry{
		{single4, nameSingle4, true, as("", emptying{stack: worker, into: ownSink, span: span{mails: n}}.measure)},
		{netSMTP, nameNetSMTP, false, as(fmt.Sprint("concurrency ", manyConnections), emptying{stack: others, into: ownSink, span: span{mails: usually}}.measure)},
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
