// Package scenario holds the scenarios that are measured, and the table of them.
package scenario

import (
	"context"
	"errors"
	"fmt"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// Scenario is one comparison.
type Scenario struct {
	Name    string
	Title   string
	About   string
	Metrics []report.Metric
	Rounds  int // of a full run, 0: as many as the size says; a quick one has one then
	Entries []Entry
}

// Entry is one contender, and how one round of it is measured.
type Entry struct {
	Name    string
	Ours    bool
	Measure func(*harness.Bench) report.Sample
}

// Size says how much is done.
type Size struct {
	Quick  bool
	Rounds int
}

// of is how much of something is used: in a full run, and in a quick one.
func (s Size) of(full, quick int) int {
	if s.Quick {
		return quick
	}
	return full
}

// Run measures all entries of the scenario once in each round, so that other load on the
// machine affects all of them alike. It calls say with each measurement.
func (s Scenario) Run(ctx context.Context, programs harness.Programs, size Size, say func(string)) (*report.Scenario, error) {
	rounds := s.rounds(size)
	result := &report.Scenario{Name: s.Name, Title: s.Title, About: s.About, Metrics: s.Metrics}
	for _, e := range s.Entries {
		result.Contenders = append(result.Contenders, &report.Contender{Name: e.Name, Ours: e.Ours})
	}
	for round := range rounds {
		for i, e := range s.Entries {
			c := result.Contenders[i]
			if c.Skipped != "" {
				continue
			}
			sample, err := measure(ctx, s.Name+", "+e.Name, programs, e.Measure)
			var skipped *harness.SkippedError
			if errors.As(err, &skipped) {
				c.Skipped = skipped.Reason
				say(fmt.Sprintf("%s %d/%d  %s: %v", s.Name, round+1, rounds, e.Name, err))
				continue
			}
			if err != nil {
				return nil, err
			}
			c.Add(sample)
			say(fmt.Sprintf("%s %d/%d  %s: %s", s.Name, round+1, rounds, e.Name, describe(s.Metrics, sample)))
		}
	}
	return result, nil
}

func (s Scenario) rounds(size Size) int {
	switch {
	case s.Rounds == 0:
		return size.Rounds
	case size.Quick:
		return 1
	}
	return min(s.Rounds, size.Rounds)
}

func measure(ctx context.Context, name string, programs harness.Programs, f func(*harness.Bench) report.Sample) (sample report.Sample, err error) {
	err = harness.Run(ctx, name, programs, func(b *harness.Bench) { sample = f(b) })
	return sample, err
}

func describe(metrics []report.Metric, sample report.Sample) string {
	text := ""
	for _, m := range metrics {
		if v, ok := sample[m.Key]; ok {
			text += fmt.Sprintf("%s %s; ", report.Number(v), m.Title)
		}
	}
	return text[:max(len(text)-2, 0)]
}
