package scenario

import (
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/bench/report"
)

func TestHighlights(t *testing.T) {
	r := &report.Run{Scenarios: []*report.Scenario{
		{Name: "drain", Contenders: []*report.Contender{
			contender(nameWorker, map[string][]float64{rate: {9000, 9000, 4500}}),
			contender(nameNetSMTP, map[string][]float64{rate: {3000, 3000, 1500}}),
			contender(nameGoMail, map[string][]float64{rate: {6000, 6000, 3000}}), // the faster one
		}},
		{Name: "saturated", Contenders: []*report.Contender{
			contender(nameUnderBulk, map[string][]float64{"p50_ms": {2}}), contender(nameBaseline, map[string][]float64{"p50_ms": {1}}),
		}},
		{Name: "attachment", Contenders: []*report.Contender{
			contender(nameWorker, map[string][]float64{"redis_mb": {5}}), contender(nameNetSMTP, map[string][]float64{"redis_mb": {1500}}),
		}},
	}}
	want := []report.Highlight{
		{What: "mails a second, 4 connections", Beside: "asynq and an SMTP client, 20 open connections", Ratio: "1.50"},
		{What: "less memory in Redis, 1,000 mails with the same file of 1 MB", Beside: "the file in each task", Ratio: "300"},
		{What: "sooner accepted, a critical mail under bulk", Beside: "asynq with its defaults", Ratio: "0.50"},
	}
	if got := Highlights(r); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
