// Package report holds the results of a run and writes them: as JSON for programs, as
// text for a terminal, as the pages and plots in docs.
package report

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Run is all that one run of the program has measured.
type Run struct {
	Date      time.Time
	Quick     bool // few mails and rounds: the numbers are worth little
	Took      time.Duration
	Machine   Machine
	Scenarios []*Scenario
	Goals     []Goal
	Profiles  []Profile
}

// Machine is what the run ran on.
type Machine struct {
	CPU    string
	Cores  int
	Memory string
	System string
	Go     string
	Redis  string
	Commit string // of the tree, empty outside of git
}

// Scenario is one comparison: the same work done by several contenders.
type Scenario struct {
	Name       string // of files and flags: drain
	Title      string
	About      string // what was done
	Metrics    []Metric
	Contenders []*Contender
}

// Metric is one thing measured. The first of a scenario is the one that is drawn.
type Metric struct {
	Key   string
	Title string // with the unit, heads a column
}

// Contender is one way to do the work.
type Contender struct {
	Key      string // of flags and files: netsmtp
	Name     string
	Settings string // that it has
	Ours     bool
	Skipped  string               // why there are no samples
	Trials   []Trial              // that the settings were chosen by
	Samples  map[string][]float64 // by metric, one of each round
}

// Trial is what a contender reached with some settings in a short measurement.
type Trial struct {
	Settings string
	Value    float64 // of the first metric
}

// Sample is what one round of one contender has measured, by metric.
type Sample map[string]float64

// Add adds a round's sample.
func (c *Contender) Add(s Sample) {
	if c.Samples == nil {
		c.Samples = map[string][]float64{}
	}
	for key, value := range s {
		c.Samples[key] = append(c.Samples[key], value)
	}
}

// Stat is the summary of a metric over the rounds.
func (c *Contender) Stat(key string) Stat { return Summarise(c.Samples[key]) }

// Scenario finds a scenario by its name: nil if it was not run.
func (r *Run) Scenario(name string) *Scenario {
	i := slices.IndexFunc(r.Scenarios, func(s *Scenario) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return r.Scenarios[i]
}

// Contender finds a contender by its key: one without samples if there is none.
func (s *Scenario) Contender(key string) *Contender {
	if s != nil {
		for _, c := range s.Contenders {
			if c.Key == key {
				return c
			}
		}
	}
	return &Contender{Key: key}
}

// Stat summarises the rounds of one metric.
type Stat struct {
	Median, Min, Max float64
	N                int // rounds: the others mean nothing if it is 0
}

// Summarise sums up samples, in any order.
func Summarise(samples []float64) Stat {
	n := len(samples)
	if n == 0 {
		return Stat{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(samples))
	return Stat{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], N: n}
}

// Ratio compares the samples of a with those of b, round by round. Both samples of a round
// were measured within a minute, so other load on the machine affects both.
func Ratio(a, b []float64) Stat {
	n := min(len(a), len(b))
	ratios := make([]float64, 0, n)
	for i, v := range a[:n] {
		ratios = append(ratios, v/b[i])
	}
	return Summarise(ratios)
}

// Percentile is the value that the share p of the samples does not exceed (nearest rank).
func Percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// String is the median, with the least and the greatest if there were several rounds.
func (s Stat) String() string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return Number(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", Number(s.Median), Number(s.Min), Number(s.Max))
}

// Number writes a value with three digits, or with all of its integer part, and one that
// is whole without a fraction: 1.23, 12.3, 123, 12,345, 12.
func Number(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == math.Trunc(v): // a count
	case size < 9.995:
		return fmt.Sprintf("%.2f", v)
	case size < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 {
		return "-" + digits
	}
	return digits
}

// Goal is what was wanted, and what was measured.
type Goal struct {
	Key      string // of what bounds it, if it is not met
	Text     string
	Wanted   string
	Measured []string // with Redis's append-only file, and without it if that was measured too
	Met      bool
	Missing  bool // it was not measured
}

// Verdict is the goal in one word.
func (g Goal) Verdict() string {
	switch {
	case g.Missing:
		return "not measured"
	case g.Met:
		return "met"
	}
	return "**not met**"
}

// Profile says where the processor time of a worker went.
type Profile struct {
	Title   string
	PerMail float64 // us of processor time, as the scenarios measured it: 0 if they were not run
	Parts   []Part
}

// Part is what one part of the worker took.
type Part struct {
	Name    string
	Share   float64 // of all samples
	Syscall float64 // of all samples: those of this part inside the system
}
