package scenario

import (
	"testing"

	"github.com/mailpouch/mailpouch/bench/report"
)

func contender(name string, samples map[string][]float64) *report.Contender {
	return &report.Contender{Name: name, Samples: samples}
}

func TestBars(t *testing.T) {
	r := &report.Run{Scenarios: []*report.Scenario{
		{Name: "drain", Contenders: []*report.Contender{
			contender(nameWorker, map[string][]float64{rate: {9000, 4500, 9000}, worker: {80, 60, 65}, memory: {50, 60, 70}}),
			contender(nameMore, map[string][]float64{rate: {12000, 6000, 12000}}),
			contender(nameChunked, map[string][]float64{rate: {15000, 7500, 15000}, worker: {60, 80, 75}}),
			contender(nameEmpty, map[string][]float64{rate: {10000, 5000, 10000}, worker: {100, 75, 81.25}}),
			contender(nameNetSMTP, map[string][]float64{rate: {6000, 3000, 6000}}),
			contender(nameGoMail, map[string][]float64{rate: {5000, 2500, 5000}}),
		}},
		{Name: "mass", Contenders: []*report.Contender{
			contender(nameBulk, map[string][]float64{rate: {24000, 20000}, memory: {130, 130}}),
			contender(nameBulkMore, map[string][]float64{rate: {30000, 32000}}),
			contender(nameBulkChunked, map[string][]float64{rate: {40000, 40000}}),
			contender(nameWorker, map[string][]float64{rate: {10000, 10000}}),
		}},
	}}
	want := []struct {
		measured string
		verdict  string
	}{
		{"90 (90 to 90) %", "met"},
		{"1.50 (1.50 to 1.50) times", "**not met**"},
		{"2 (2 to 2) times", "met"},
		{"2.50 (2.50 to 2.50) times", "met"},
		{"65 (60 to 80) us", "met"},
		{"75 (60 to 80) us", "**not met**"},
		{"80 (80 to 80) %", "met"},
		{"2.20 (2 to 2.40) times", "**not met**"},
		{"3.10 (3 to 3.20) times", "met"},
		{"4 (4 to 4) times", "met"},
		{"– mails/s", "not measured"},
		{"– ms", "not measured"},
		{"– ms", "not measured"},
		{"130 (130 to 130) MB", "**not met**"},
		{"– MB", "not measured"},
	}
	bars := Bars(r)
	if len(bars) != len(want) {
		t.Fatalf("%d bars, want %d", len(bars), len(want))
	}
	for i, b := range bars {
		if b.Measured != want[i].measured || b.Verdict() != want[i].verdict {
			t.Errorf("%s: %s, %s, want %s, %s", b.Text, b.Measured, b.Verdict(), want[i].measured, want[i].verdict)
		}
	}
}
