package scenario

import (
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/bench/report"
)

func TestGoals(t *testing.T) {
	r := &report.Run{Scenarios: []*report.Scenario{
		{Name: "drain", Contenders: []*report.Contender{
			contender("single", map[string][]float64{rate: {9000, 4500, 9000}, worker: {80, 60, 65}, server: {30, 31, 32}, memory: {90, 90, 90}}),
			contender("single4", map[string][]float64{rate: {8000, 4000, 8000}}),
			contender("empty", map[string][]float64{rate: {10000, 5000, 10000}}),
			contender("netsmtp", map[string][]float64{rate: {5000, 2500, 5000}}),
		}},
		{Name: "drain-memory", Contenders: []*report.Contender{
			contender("single", map[string][]float64{rate: {9000, 9000}, worker: {80, 80}, server: {33, 33}, memory: {90, 90}}),
			contender("single4", map[string][]float64{rate: {7000, 7000}}),
			contender("netsmtp", map[string][]float64{rate: {5000, 5000}}),
		}},
		{Name: "bulk", Contenders: []*report.Contender{
			contender("bulk", map[string][]float64{rate: {17000, 18000}, waiting: {2720}}),
			contender("client", map[string][]float64{rate: {20000, 20000}}),
		}},
		{Name: "distance", Contenders: []*report.Contender{contender("single", map[string][]float64{share: {94, 96, 95}})}},
		{Name: "idle", Contenders: []*report.Contender{contender("single4", map[string][]float64{p50: {6}, p99: {15}})}},
	}}
	want := map[string]struct {
		measured []string
		verdict  string
	}{
		"rate":        {[]string{"1.80 (1.80 to 1.80)", "1.80 (1.80 to 1.80)"}, "met"},
		"rate-empty":  {[]string{"0.90 (0.90 to 0.90)", "–"}, "**not met**"},
		"worker-time": {[]string{"65 (60 to 80)", "80 (80 to 80)"}, "met"},
		"redis-time":  {[]string{"31 (30 to 32)", "33 (33 to 33)"}, "**not met**"}, // without the file
		"rate4":       {[]string{"1.60 (1.60 to 1.60)", "1.40 (1.40 to 1.40)"}, "**not met**"},
		"distance":    {[]string{"95 (94 to 96)"}, "met"},
		"bulk":        {[]string{"87.5 (85 to 90)", "–"}, "met"},
		"bulk-bytes":  {[]string{"2,720", "–"}, "**not met**"},
		"idle":        {[]string{"6"}, "**not met**"},
		"idle99":      {[]string{"15"}, "met"},
		"memory":      {[]string{"90 (90 to 90)", "90 (90 to 90)"}, "met"},
	}
	seen := map[string]bool{}
	for _, g := range Goals(r) {
		if seen[g.Key] {
			t.Errorf("%s is there twice", g.Key)
		}
		seen[g.Key] = true
		w, ok := want[g.Key]
		if !ok {
			w.verdict = "not measured"
		}
		if ok && !slices.Equal(g.Measured, w.measured) || g.Verdict() != w.verdict {
			t.Errorf("%s: %q, %s, want %q, %s", g.Key, g.Measured, g.Verdict(), w.measured, w.verdict)
		}
		delete(want, g.Key)
	}
	if len(want) > 0 {
		t.Errorf("there are no goals for %v", want)
	}
}
