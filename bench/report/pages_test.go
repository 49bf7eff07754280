package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleRun() *Run {
	ours := &Contender{Name: "worker run", Ours: true, Samples: map[string][]float64{
		"rate": {8000, 10000, 9000}, "worker_us": {70, 80, 90}, "redis_us": {40, 40, 40}, "sink_us": {10, 10, 10}, "machine_us": {150, 150, 150},
	}}
	other := &Contender{Name: "asynq & friends", Settings: "concurrency 50", Trials: []Trial{{"concurrency 20", 4900}, {"concurrency 50", 5100}}, Samples: map[string][]float64{"rate": {4000, 5000, 6000}}}
	absent := &Contender{Name: "absent", Skipped: "it is not installed"}
	return &Run{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 19 * time.Minute,
		Machine: Machine{CPU: "Test CPU", Cores: 2, Memory: "8 GB", System: "linux/amd64", Go: "go1.26", Redis: "7.0", Commit: "abc"},
		Scenarios: []*Scenario{{
			Name: "drain", Title: "One task a mail", About: "What was done.",
			Metrics:    []Metric{{"rate", "mails/s"}, {"worker_us", "worker, us a mail"}},
			Contenders: []*Contender{ours, other, absent},
		}},
		Goals: []Goal{
			{Key: "rate", Text: "Rate", Wanted: "at least 2 times", Measured: []string{"1.80", "2.10"}},
			{Key: "memory", Text: "Memory", Wanted: "at most 120 MB", Measured: []string{"30"}, Met: true},
		},
		Profiles: []Profile{{Title: "One task a mail", PerMail: 80, Parts: []Part{{"Redis's client", 0.5, 0.25}, {"JSON", 0.125, 0}}}},
	}
}

func sampleCosts() Costs {
	return Costs{
		Single:  Cost{Rate: 9000, Worker: 80, Redis: 60, Producer: 30, Waiting: 3000, Network: 6000},
		Bulk:    Cost{Rate: 30000, Worker: 30, Redis: 10, Producer: 10, Waiting: 2500, Network: 5000},
		Chunked: Cost{Rate: 50000, Worker: 20, Redis: 5, Producer: 10, Waiting: 2500, Network: 5000},
	}
}

func TestWritePages(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "docs")
	if err := WritePages(dir, sampleRun(), sampleCosts()); err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"performance.md": {
			"2 January 2026 in 19m0s", "2 processors (Test CPU), 8 GB of memory", "the median of 3 rounds",
			"| Rate | at least 2 times | 1.80 | 2.10 | **not met** |", "| Memory | at most 120 MB | 30 |  | met |",
			"![One task a mail: mails/s](performance/drain.svg)",
			"| **worker run** |  | 9,000 (8,000 to 10,000) | 80 (70 to 90) |", "| asynq & friends | concurrency 50 | 5,000 (4,000 to 6,000) | – |",
			"short trial: mails/s of asynq & friends: concurrency 20 4,900, concurrency 50 5,100.",
			"| absent |  | not measured: it is not installed | – |",
			"| Redis's client | 50 % | 25 % | 40 |", "| JSON | 12 % | 0 % | 10 |",
			"| worker | 80 | 0.72 | 12,500 mails/s for each processor it has |", "| the system, and whatever else ran here | 20 | 0.18 |  |", "Together they kept 1.35 of the machine's 2 processors busy.",
		},
		"scale.md": {
			"## 100 million mails a day: 1,157 a second, 3,472 at the peak", "| workers, processors | 0.46 | 0.17 | 0.12 |", "| Redis masters | 1 | 1 |",
			"| Redis masters | 35 | 6 | 3 |", "full at 16,667 mails a second", "so one task a mail takes 39 of them at the peak",
		},
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s lacks %q:\n%s", name, want, data)
			}
		}
		for _, not := range []string{"<no value>", "NaN", "quick run", "%!"} {
			if strings.Contains(string(data), not) {
				t.Errorf("%s has %q", name, not)
			}
		}
	}
}

func TestReadBounds(t *testing.T) {
	t.Parallel()
	got := readBounds("<!-- a comment -->\n\n## rate, rate4\n\nTwo\nlines.\n\n## memory\nThe buffers.\n")
	want := map[string]string{"rate": "Two lines.", "rate4": "Two lines.", "memory": "The buffers."}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCosts_complete(t *testing.T) {
	t.Parallel()
	c := sampleCosts()
	if !c.complete() {
		t.Error("not complete")
	}
	c.Bulk.Waiting = math.NaN()
	if c.complete() {
		t.Error("complete, though something was not measured")
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	parts := func(busy ...float64) []limitPart {
		return []limitPart{{Name: "worker", Busy: busy[0]}, {Name: "Redis", Busy: busy[1]}, {Name: "mail server", Busy: busy[2]}, {Name: "others", Busy: busy[3]}}
	}
	tests := []struct {
		name       string
		parts      []limitPart
		processors float64
		want       string
	}{
		{"Redis is full", parts(2, 0.95, 0.5, 0), 16, "Redis's one thread is the limit"},
		{"smtp-sink is full", parts(2, 0.5, 0.9, 0), 16, "smtp-sink's one thread is the limit"},
		{"the machine is full", parts(1.2, 0.5, 0.2, 0), 2, "most of them goes to: worker."},
		{"others are busy", parts(0.3, 0.1, 0.1, 1.4), 2, "most of them goes to: others."},
		{"nothing is full", parts(0.7, 0.4, 0.1, 0), 4, "**The limit is waiting**"},
	}
	for _, tt := range tests {
		if got := verdict(tt.parts, tt.processors); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

func TestWritePlots(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "plots")
	if err := WritePlots(dir, sampleRun()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "drain.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var texts []string
	bars := map[string]int{} // by colour
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch v := token.(type) {
		case xml.CharData:
			if text := strings.TrimSpace(string(v)); text != "" {
				texts = append(texts, text)
			}
		case xml.StartElement:
			for _, a := range v.Attr {
				if a.Name.Local == "style" && strings.HasPrefix(a.Value, "fill:#") && v.Name.Local == "path" {
					bars[a.Value]++
				}
			}
		}
	}
	all := strings.Join(texts, "|")
	for _, want := range []string{"worker run", "asynq & friends", "mails/s", "10,000"} {
		if !strings.Contains(all, want) {
			t.Errorf("the plot does not say %q: %s", want, all)
		}
	}
	if strings.Contains(all, "absent") {
		t.Error("a contender without samples has a bar")
	}
	if bars["fill:#1F8A70"] != 1 || bars["fill:#8C95A8"] != 1 {
		t.Errorf("bars %v, want one of ours and one of the others", bars)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "results", "run.json")
	want := sampleRun()
	if err := WriteJSON(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadJSON(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want it to name the file", err)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	old, now := sampleRun(), sampleRun()
	now.Scenarios[0].Contenders[0].Samples["rate"] = []float64{18000}
	now.Scenarios = append(now.Scenarios, &Scenario{Name: "new", Metrics: []Metric{{Key: "rate"}}, Contenders: []*Contender{{Name: "a"}}})
	got := Compare(old, now)
	if !strings.Contains(got, "9,000 (8,000 to 10,000)") || !strings.Contains(got, "x 2\n") || strings.Contains(got, "absent") {
		t.Errorf("got %s", got)
	}
}
