package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/report"
)

// Bars compares the results with the required values.
func Bars(r *report.Run) []report.Bar {
	emptied, massed := r.Scenario("drain"), r.Scenario("mass")
	ours := emptied.Contender(nameWorker)
	best := bestBaseline(emptied)
	one, chunks := massed.Contender(nameWorker), emptied.Contender(nameChunked)
	bulk := r.Scenario("enqueue").Contender("SendMessages of 1,000, 32 goroutines")
	return []report.Bar{
		atLeast("One task a mail: the rate of an asynq server with an empty handler", "85 %", 85,
			percent(report.Ratio(ours.Samples[rate], emptied.Contender(nameEmpty).Samples[rate])), "%"),
		atLeast("One task a mail: the rate of the best usual handler with open connections", "1.7 times", 1.7,
			report.Ratio(ours.Samples[rate], best.Samples[rate]), "times"),
		atLeast("The same with as many connections as that", "1.7 times", 1.7,
			report.Ratio(emptied.Contender(nameMore).Samples[rate], best.Samples[rate]), "times"),
		atLeast("The same chunked, over 4", "1.7 times", 1.7, report.Ratio(chunks.Samples[rate], best.Samples[rate]), "times"),
		atMost("One task a mail: processor time of the worker", "70 us a mail", 70, ours.Stat(worker), "us"),
		atMost("The same chunked", "70 us a mail", 70, chunks.Stat(worker), "us"),
		atMost("One task a mail: processor time of the worker against the empty handler's, which was 83 us where the 70 were set", "84 %", 84,
			percent(report.Ratio(ours.Samples[worker], emptied.Contender(nameEmpty).Samples[worker])), "%"),
		atLeast("Bulk mail: the rate of one task a mail", "3 times", 3,
			report.Ratio(massed.Contender(nameBulk).Samples[rate], one.Samples[rate]), "times"),
		atLeast("Bulk mail over 20 connections: the rate of one task a mail over 4", "3 times", 3,
			report.Ratio(massed.Contender(nameBulkMore).Samples[rate], one.Samples[rate]), "times"),
		atLeast("Bulk mail chunked, over 4: the rate of one task a mail, not chunked", "3 times", 3,
			report.Ratio(massed.Contender(nameBulkChunked).Samples[rate], one.Samples[rate]), "times"),
		atLeast("Handing over from one process", "100,000 mails/s", 100_000, bulk.Stat(rate), "mails/s"),
		atMost("A single mail, the worker idle: half are accepted after", "30 ms", 30,
			r.Scenario("idle").Contender(nameWorker).Stat("p50_ms"), "ms"),
		atMost("A single critical mail under bulk mail: half are accepted after", "3 ms", 3,
			r.Scenario("saturated").Contender(nameUnderBulk).Stat("p50_ms"), "ms"),
		atMost("Memory of a worker at full speed, mails of 2 kB", "120 MB", 120, larger(ours.Stat(memory), massed.Contender(nameBulk).Stat(memory)), "MB"),
		atMost("Memory of a worker, mails of 10 MB", "600 MB", 600, r.Scenario("big").Contender(nameBig).Stat(memory), "MB"),
	}
}

func atLeast(text, wanted string, bar float64, got report.Stat, unit string) report.Bar {
	return newBar("at least ", text, wanted, got, unit, got.Median >= bar)
}

func atMost(text, wanted string, bar float64, got report.Stat, unit string) report.Bar {
	return newBar("at most ", text, wanted, got, unit, got.Median <= bar)
}

func newBar(bound, text, wanted string, got report.Stat, unit string, met bool) report.Bar {
	return report.Bar{Text: text, Wanted: bound + wanted, Measured: fmt.Sprintf("%v %s", got, unit), Met: met, Missing: got.N == 0}
}

func percent(s report.Stat) report.Stat {
	return report.Stat{Median: 100 * s.Median, Min: 100 * s.Min, Max: 100 * s.Max, N: s.N}
}

// larger is the one of which more is used. One that was not measured does not count.
func larger(a, b report.Stat) report.Stat {
	if b.N > 0 && (a.N == 0 || b.Median > a.Median) {
		return b
	}
	return a
}
