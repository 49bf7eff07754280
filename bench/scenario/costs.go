package scenario

import "github.com/mailpouch/mailpouch/bench/report"

// Costs is what a mail was measured to cost, for the pages that reckon with it.
func Costs(r *report.Run) report.Costs {
	handing := r.Scenario(enqueueName)
	cost := func(scenario, contender, filler string) report.Cost {
		ours, fill := r.Scenario(scenario).Contender(contender), handing.Contender(filler)
		return report.Cost{
			Rate:     ours.Stat(rate).Median,
			Worker:   ours.Stat(worker).Median,
			Redis:    ours.Stat(server).Median + fill.Stat(server).Median,
			Producer: fill.Stat(producer).Median,
			Waiting:  ours.Stat(waiting).Median,
			Network:  ours.Stat(network).Median + fill.Stat(network).Median,
		}
	}
	return report.Costs{
		Single:  cost(drainName, single4, many),
		Bulk:    cost(bulkName, bulk4, manyBatches),
		Chunked: cost(chunkingName, bulkChunked, manyBatches),
	}
}
