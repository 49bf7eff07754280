package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/report"
)

const (
	nameMass        = "bulk mail (SendMessages of 1,000)"
	nameMassMore    = "bulk mail, 20 connections"
	nameMassChunked = "bulk mail, chunked"
)

func mass(size Size) Scenario {
	n := size.of(60_000, 8_000)
	return Scenario{
		Name:  "mass",
		Title: "Bulk mail",
		About: fmt.Sprintf("%s mails of 2 kB, handed over with Queue.SendMessages, 1,000 in a call, and delivered by one worker "+
			"process: with its default settings, over 20 connections, and with EMAIL_CHUNKING=auto (chunked); beside it the same mails, handed over one by one.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, memory, waiting, network),
		Entries: []Entry{
			{nameMass, true, emptying{mails: n, fill: inBatches, start: workers(1)}.measure},
			{nameMassMore, true, emptying{mails: n, fill: inBatches, start: workers(1, manyConnections)}.measure},
			{nameMassChunked, true, emptying{mails: n, fill: inBatches, start: workers(1, chunked)}.measure},
			{nameWorker, true, emptying{mails: n, fill: singly, start: workers(1)}.measure},
		},
	}
}
