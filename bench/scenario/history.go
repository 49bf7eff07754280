package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// noHistory keeps nothing of messages that have ended.
const noHistory = "EMAIL_HISTORY=0"

func keeping(size Size) Scenario {
	n := size.of(16_000, 2_000)
	of := func(fill func(*harness.Bench, *harness.Redis, int), n int, with ...string) []Way {
		settings := append([]string{connections(fewConnections)}, with...)
		note := ""
		if len(with) > 0 {
			note = with[0]
		}
		return as(note, emptying{stack: ours(fill, settings...), into: smtpSink, span: span{mails: n}}.measure)
	}
	return Scenario{
		Name:    historyName,
		Title:   "The history of what has ended",
		About:   fmt.Sprintf("%s mails of 2 kB, one task each, and twice as many as bulk mail, delivered to smtp-sink with and without a record of each in Redis (EMAIL_HISTORY).", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, network),
		Entries: []Entry{
			{single4, nameSingle4, true, of(singly, n)},
			{"single4-without", nameSingle4, true, of(singly, n, noHistory)},
			{bulk4, nameBulk4, true, of(inBatches, 2*n)},
			{"bulk4-without", nameBulk4, true, of(inBatches, 2*n, noHistory)},
		},
	}
}
