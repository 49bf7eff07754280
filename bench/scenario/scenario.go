// Package scenario holds the scenarios that are measured, and the table of them.
package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

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

// Entry is one contender.
type Entry struct {
	Key  string // of --only, and of those that use the results
	Name string
	Ours bool
	Ways []Way // that it may be set up: the best one of a trial takes part
}

// Way is how a contender is set up, and how one round of it is measured.
type Way struct {
	Settings string
	Measure  func(*harness.Bench) report.Sample
	Trial    func(*harness.Bench) report.Sample // a short one; nil where there is nothing to choose
}

// as is the only way of a contender.
func as(settings string, measure func(*harness.Bench) report.Sample) []Way {
	return []Way{{Settings: settings, Measure: measure}}
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

// Only is the scenario with those of its entries that a pattern asks for: the name of the
// scenario, or that and the key of an entry with a slash between them, where * stands for
// anything.
func (s Scenario) Only(patterns ...string) Scenario {
	s.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e Entry) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return matches(p, s.Name) || matches(p, s.Name+"/"+e.Key) })
	})
	return s
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil // a pattern that is wrong fits nothing
}

// Run measures all entries of the scenario once in each round, so that other load on the
// machine affects all of them alike. It calls say with each measurement.
func (s Scenario) Run(ctx context.Context, programs harness.Programs, size Size, say func(string)) (*report.Scenario, error) {
	r := running{s, ctx, programs, say}
	result := &report.Scenario{Name: s.Name, Title: s.Title, About: s.About, Metrics: s.Metrics}
	ways := make([]Way, len(s.Entries))
	for i, e := range s.Entries {
		c := &report.Contender{Key: e.Key, Name: e.Name, Ours: e.Ours}
		result.Contenders = append(result.Contenders, c)
		var err error
		if ways[i], err = r.choose(e, c); err != nil {
			return nil, err
		}
	}
	rounds := s.rounds(size)
	for round := range rounds {
		for i, way := range ways {
			c := result.Contenders[i]
			sample, err := r.measure(c, fmt.Sprintf("%d/%d", round+1, rounds), way.Measure)
			if err != nil {
				return nil, err
			}
			c.Add(sample)
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

// running is a scenario that runs.
type running struct {
	Scenario
	ctx      context.Context
	programs harness.Programs
	say      func(string)
}

// choose tries the ways of an entry and takes the best one.
func (r running) choose(e Entry, c *report.Contender) (Way, error) {
	best := e.Ways[0]
	for _, way := range e.Ways {
		if way.Trial == nil {
			break
		}
		sample, err := r.measure(c, "trial, "+way.Settings, way.Trial)
		if err != nil || c.Skipped != "" {
			return best, err
		}
		c.Trials = append(c.Trials, report.Trial{Settings: way.Settings, Value: sample[r.Metrics[0].Key]})
	}
	if len(c.Trials) > 0 {
		first := slices.MaxFunc(c.Trials, func(a, b report.Trial) int { return cmp.Compare(a.Value, b.Value) })
		best = e.Ways[slices.Index(c.Trials, first)]
	}
	c.Settings = best.Settings
	return best, nil
}

// measure measures a contender once: nothing if it is not possible here.
func (r running) measure(c *report.Contender, which string, f func(*harness.Bench) report.Sample) (sample report.Sample, err error) {
	if c.Skipped != "" {
		return nil, nil
	}
	err = harness.Run(r.ctx, r.Name+", "+c.Name, r.programs, func(b *harness.Bench) { sample = f(b) })
	var skipped *harness.SkippedError
	if errors.As(err, &skipped) {
		c.Skipped = skipped.Reason
		r.say(fmt.Sprintf("%s %s  %s: %v", r.Name, which, c.Name, err))
		return nil, nil
	}
	if err == nil {
		r.say(fmt.Sprintf("%s %s  %s: %s", r.Name, which, c.Name, describe(r.Metrics, sample)))
	}
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
