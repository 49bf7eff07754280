package scenario

import (
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/bench/report"
)

func contender(key string, samples map[string][]float64) *report.Contender {
	return &report.Contender{Key: key, Samples: samples}
}

func TestHighlights(t *testing.T) {
	r := &report.Run{Scenarios: []*report.Scenario{
		{Name: "drain", Contenders: []*report.Contender{
			contender("single", map[string][]float64{rate: {9000, 9000, 4500}}),
			contender("netsmtp", map[string][]float64{rate: {3000, 3000, 1500}}),
			contender("gomail", map[string][]float64{rate: {6000, 6000, 3000}}), // the faster one
		}},
		{Name: "drain-memory", Contenders: []*report.Contender{
			contender("single", map[string][]float64{rate: {9000, 9000}}),
			contender("netsmtp", map[string][]float64{rate: {7200, 7200}}), // the least ratio is shown
		}},
		{Name: "chunking", Contenders: []*report.Contender{
			contender("single", map[string][]float64{rate: {9000, 9000}}),
			contender("netsmtp", map[string][]float64{rate: {4500, 4500}}),
		}},
		{Name: "saturated", Contenders: []*report.Contender{
			contender("single4", map[string][]float64{"p50_ms": {2}}), contender("netsmtp", map[string][]float64{"p50_ms": {1}}),
		}},
		{Name: "attachment", Contenders: []*report.Contender{
			contender("single4", map[string][]float64{"redis_mb": {5}}), contender("netsmtp", map[string][]float64{"redis_mb": {1500}}),
		}},
	}}
	want := []string{
		"mails a second, 20 connections: 1.25",
		"less memory in Redis, 1,000 mails with the same file of 1 MB: 300",
		"sooner accepted, a critical mail under bulk: 0.50",
	}
	var got []string
	for _, h := range Highlights(r) {
		got = append(got, h.What+": "+h.Ratio)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
