package scenario

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func TestTable(t *testing.T) {
	t.Parallel()
	for _, size := range []Size{{Rounds: 5}, {Rounds: 2, Quick: true}} {
		seen := map[string]bool{}
		for _, s := range Table(size) {
			if s.Name == "" || s.Title == "" || s.About == "" || len(s.Metrics) == 0 || len(s.Entries) == 0 || seen[s.Name] {
				t.Errorf("%q is not complete, or twice there", s.Name)
			}
			seen[s.Name] = true
			keys := map[string]bool{}
			for _, e := range s.Entries {
				if e.Key == "" || e.Name == "" || len(e.Ways) == 0 || keys[e.Key] {
					t.Errorf("%s: %q is not complete, or twice there", s.Name, e.Key)
				}
				keys[e.Key] = true
				for _, w := range e.Ways {
					if w.Measure == nil || (w.Trial != nil) != (len(e.Ways) > 1) {
						t.Errorf("%s: %s: %q measures nothing, or is not tried", s.Name, e.Key, w.Settings)
					}
				}
			}
			for _, m := range s.Metrics {
				if m.Title == "" {
					t.Errorf("%s: %s has no title", s.Name, m.Key)
				}
			}
		}
	}
}

func TestScenario_Run(t *testing.T) {
	t.Parallel()
	var order []string
	value := 0.0
	entry := func(name string, measure func(*harness.Bench) report.Sample) Entry {
		return Entry{Key: name, Name: name, Ways: as("", func(b *harness.Bench) report.Sample {
			order = append(order, name)
			return measure(b)
		})}
	}
	way := func(name string, trial, full float64) Way {
		of := func(what string, v float64) func(*harness.Bench) report.Sample {
			return func(*harness.Bench) report.Sample {
				order = append(order, what+name)
				return report.Sample{rate: v}
			}
		}
		return Way{Settings: name, Trial: of("try-", trial), Measure: of("", full)}
	}
	s := Scenario{Name: "test", Metrics: metrics(rate), Entries: []Entry{
		entry("a", func(*harness.Bench) report.Sample { value++; return report.Sample{rate: value} }),
		entry("b", func(b *harness.Bench) report.Sample { b.Skip("it is not there"); return nil }),
		{Key: "c", Name: "c", Ways: []Way{way("c20", 5, 10), way("c50", 6, 11), way("c100", 4, 12)}},
	}}
	var said []string
	got, err := s.Run(t.Context(), harness.Programs{}, Size{Rounds: 3}, func(text string) { said = append(said, text) })
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields("try-c20 try-c50 try-c100 a b c50 a c50 a c50"); !slices.Equal(order, want) {
		t.Errorf("measured %v, want the rounds interleaved: %v", order, want)
	}
	if want := map[string][]float64{rate: {1, 2, 3}}; !reflect.DeepEqual(got.Contenders[0].Samples, want) {
		t.Errorf("samples %v, want %v", got.Contenders[0].Samples, want)
	}
	if got.Contenders[1].Skipped != "it is not there" {
		t.Errorf("skipped: %q", got.Contenders[1].Skipped)
	}
	tried := []report.Trial{{Settings: "c20", Value: 5}, {Settings: "c50", Value: 6}, {Settings: "c100", Value: 4}}
	if c := got.Contenders[2]; c.Settings != "c50" || !slices.Equal(c.Trials, tried) || !slices.Equal(c.Samples[rate], []float64{11, 11, 11}) {
		t.Errorf("got %+v, want the settings that did best in the trial", c)
	}
	if want := "test 3/3  a: 3 mails/s"; !slices.Contains(said, want) {
		t.Errorf("said %q, want %q among it", said, want)
	}
}

func TestScenario_Run_fails(t *testing.T) {
	t.Parallel()
	s := Scenario{Name: "test", Metrics: metrics(rate), Entries: []Entry{
		{Key: "a", Name: "a", Ways: as("", func(b *harness.Bench) report.Sample { b.Fatal("no mail came"); return nil })},
	}}
	_, err := s.Run(t.Context(), harness.Programs{}, Size{Rounds: 1}, func(string) {})
	if err == nil || err.Error() != "test, a: no mail came" {
		t.Errorf("error %v", err)
	}
}

func TestScenario_Only(t *testing.T) {
	t.Parallel()
	s := Scenario{Name: "drain", Entries: []Entry{{Key: "single"}, {Key: "single4"}, {Key: "empty"}}}
	for _, tt := range []struct{ patterns, want string }{
		{"drain", "single single4 empty"}, {"drain/single", "single"}, {"drain/single*", "single single4"}, {"*/empty", "empty"},
		{"drain/single drain/empty", "single empty"}, {"*", "single single4 empty"}, {"drain-memory", ""}, {"drain/", ""}, {"[", ""},
	} {
		var got []string
		for _, e := range s.Only(strings.Fields(tt.patterns)...).Entries {
			got = append(got, e.Key)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s", tt.patterns, got, tt.want)
		}
	}
}

func TestScenario_rounds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		own  int
		size Size
		want int
	}{
		{0, Size{Rounds: 5}, 5},
		{3, Size{Rounds: 5}, 3},
		{3, Size{Rounds: 2}, 2},
		{0, Size{Rounds: 2, Quick: true}, 2},
		{3, Size{Rounds: 2, Quick: true}, 1},
	}
	for _, tt := range tests {
		if got := (Scenario{Rounds: tt.own}).rounds(tt.size); got != tt.want {
			t.Errorf("%d of its own, %+v: %d rounds, want %d", tt.own, tt.size, got, tt.want)
		}
	}
}

func TestParallel(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var done []int
	err := harness.Run(t.Context(), "case", harness.Programs{}, func(b *harness.Bench) {
		parallel(b, 4, 10, func(i int) error {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, i)
			return nil
		})
	})
	slices.Sort(done)
	if err != nil || !slices.Equal(done, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("done %v, %v", done, err)
	}
	cause := errors.New("cause")
	err = harness.Run(t.Context(), "case", harness.Programs{}, func(b *harness.Bench) {
		parallel(b, 4, 10, func(int) error { return cause })
	})
	if !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
}

func TestLetter(t *testing.T) {
	t.Parallel()
	if got := len(message(1).Body); got < 1900 || got > 2100 {
		t.Errorf("a mail has %d bytes, want about 2,000", got)
	}
	if ours, theirs := message(7), baselineMail(7); ours.Body != theirs.Body || ours.To[0] != theirs.To || ours.Subject != theirs.Subject {
		t.Error("the contenders do not send the same mail")
	}
	if a, b := noise(1000, 1), noise(1000, 2); slices.Equal(a, b) {
		t.Error("two different attachments are the same")
	}
}
