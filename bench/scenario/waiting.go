package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/mailer"
)

func waitingMail(size Size) Scenario {
	n := size.of(3000, 1000)
	of := func(fill func(*harness.Bench, *harness.Redis, int)) []Way {
		return as("", func(b *harness.Bench) report.Sample {
			r := harness.StartRedis(b, harness.MemoryOnly)
			fill(b, r, 100) // what Redis needs once is there
			before := r.Usage(b)
			fill(b, r, n)
			after := r.Usage(b)
			return report.Sample{waiting: float64(after.Memory-before.Memory) / float64(n), network: float64(after.Network-before.Network) / float64(n)}
		})
	}
	usually := func(mail func(i int) baseline.Mail) []Way {
		return of(func(b *harness.Bench, r *harness.Redis, n int) { enqueueBaseline(b, r, n, producers, mail) })
	}
	return Scenario{
		Name:  waitingName,
		Title: "What waits in Redis",
		About: fmt.Sprintf("%s mails, which are the same but for a number in their text: of 2 kB, and newsletters in HTML of 20 kB. The usual payload is the mail as JSON.",
			report.Number(float64(n))),
		Metrics: metrics(waiting, network),
		Rounds:  1,
		Entries: []Entry{
			{single, "one task a mail, 2 kB", true, of(singly)},
			{bulk, "bulk mail, 2 kB", true, of(inBatches)},
			{usualPayload, "the usual payload, 2 kB", false, usually(baselineMail)},
			{html, "one task a mail, HTML of 20 kB", true, of(func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueAll(b, newQueue(r), n, newsletter)
			})},
			{htmlBulk, "bulk mail, HTML of 20 kB", true, of(func(b *harness.Bench, r *harness.Redis, n int) {
				sendAll(b, newQueue(r), n, producers, newsletter)
			})},
			{usualHTML, "the usual payload, HTML of 20 kB", false, usually(func(i int) baseline.Mail {
				m := baselineMail(i)
				m.Body = baseline.HTML(i)
				return m
			})},
		},
	}
}

// newsletter is a mail of 20 kB.
func newsletter(i int) *mailer.EmailMessage {
	m := message(i)
	m.Body, m.ContentSubtype = baseline.HTML(i), "html"
	return m
}
