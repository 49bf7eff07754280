package scenario

import "github.com/mailpouch/mailpouch/bench/report"

// Costs is what a mail was measured to cost, for the pages that reckon with it.
func Costs(r *report.Run) report.Costs {
	const bulk = "SendMessages of 1,000, 32 goroutines"
	handing := r.Scenario("enqueue")
	cost := func(scenario, contender, producer string) report.Cost {
		ours, fill := r.Scenario(scenario).Contender(contender), handing.Contender(producer)
		return report.Cost{
			Rate:     ours.Stat(rate).Median,
			Worker:   ours.Stat(worker).Median,
			Redis:    ours.Stat(server).Median + fill.Stat(server).Median,
			Producer: fill.Stat("producer_us").Median,
			Waiting:  ours.Stat(waiting).Median,
			Network:  ours.Stat(network).Median + fill.Stat(network).Median,
		}
	}
	return report.Costs{
		Single:  cost("drain", nameWorker, "Enqueue, 32 goroutines"),
		Bulk:    cost("mass", nameBulk, bulk),
		Chunked: cost("mass", nameBulkChunked, bulk),
	}
}
