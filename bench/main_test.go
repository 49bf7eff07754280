package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/bench/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun measures something of each kind, with real servers and programs.
func TestRun(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		text := "install redis-server (Debian: apt-get install redis-server)"
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	results := filepath.Join(t.TempDir(), "run.json")
	var out, progress bytes.Buffer
	only := "attachment,drain/single,drain/netsmtp,drain-memory/source,bulk/client,enqueue/command,enqueue/asynq-program,waiting/html,saturated/single4,profile"
	err := run(t.Context(), []string{"--quick", "--only", only, "--json", results}, &out, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	r, err := report.ReadJSON(results)
	if err != nil {
		t.Fatal(err)
	}
	measured := 0
	for _, s := range r.Scenarios {
		for _, c := range s.Contenders {
			if c.Skipped != "" {
				continue
			}
			measured++
			if stat := c.Stat(s.Metrics[0].Key); stat.N != 1 {
				t.Errorf("%s, %s: %d rounds", s.Name, c.Name, stat.N)
			}
			for key, samples := range c.Samples {
				if len(samples) != 1 || samples[0] <= 0 {
					t.Errorf("%s, %s, %s: %v", s.Name, c.Name, key, samples)
				}
			}
		}
	}
	if measured < 6 {
		t.Errorf("only %d contenders were measured:\n%s", measured, &progress)
	}
	if c := r.Scenario("drain").Contender("netsmtp"); c.Skipped == "" && (len(c.Trials) != 3 || !strings.HasPrefix(c.Settings, "concurrency ")) {
		t.Errorf("asynq + net/smtp has %q, chosen from %v", c.Settings, c.Trials)
	}
	if g := r.Goals[0]; g.Key != "rate" || g.Missing && r.Scenario("drain").Contender("single").Skipped == "" {
		t.Errorf("the first goal is %+v", g)
	}
	for _, p := range r.Profiles {
		share := 0.0
		for _, part := range p.Parts {
			share += part.Share
		}
		if share < 0.999 || share > 1.001 {
			t.Errorf("the parts of %s are %v of the whole: %+v", p.Title, share, p.Parts)
		}
	}
	if len(r.Profiles) != 2 {
		t.Errorf("%d profiles, want 2", len(r.Profiles))
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string
		rounds int
		chosen []string
		err    string
	}{
		{name: "everything", rounds: 3, chosen: names()},
		{name: "quick", args: []string{"--quick"}, rounds: 1, chosen: names()},
		{name: "rounds", args: []string{"--quick", "--rounds", "7"}, rounds: 7, chosen: names()},
		{name: "two", args: []string{"--only", "drain,profile"}, rounds: 3, chosen: []string{"drain", "profile"}},
		{name: "some contenders", args: []string{"--only", "drain/single,*/bulk*"}, rounds: 3, chosen: []string{"drain/single", "*/bulk*"}},
		{name: "unknown contender", args: []string{"--only", "drain/singel"}, err: `"drain/singel" is not one of drain, `},
		{name: "unknown scenario", args: []string{"--only", "drain,drian"}, err: `"drian" is not one of drain, `},
		{name: "no flag", args: []string{"quick"}, err: `"quick": there are flags only`},
		{name: "unknown flag", args: []string{"--fast"}, err: "flag provided but not defined"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, err := parse(tt.args, io.Discard)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || o.rounds != tt.rounds || !slices.Equal(o.chosen(), tt.chosen) {
				t.Errorf("rounds %d, chosen %v, %v", o.rounds, o.chosen(), err)
			}
		})
	}
}

func TestOptions_write(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &report.Contender{Key: "single", Name: "worker run, 20 connections", Ours: true, Samples: map[string][]float64{"rate": {8000, 10000, 9000}}}
	usual := &report.Contender{Key: "netsmtp", Name: "asynq + net/smtp, kept open", Samples: map[string][]float64{"rate": {4000, 4000, 6000}}}
	r := &report.Run{Quick: true, Scenarios: []*report.Scenario{{
		Name: "drain", Title: "One task a mail", Metrics: []report.Metric{{Key: "rate", Title: "mails/s"}}, Contenders: []*report.Contender{c, usual},
	}}}
	r.Goals = scenario.Goals(r)
	var out bytes.Buffer
	readme := filepath.Join(dir, "README.md")
	if err := os.WriteFile(readme, []byte("before\n<!-- performance: written by \"make bench\" -->\nold\n<!-- /performance -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{docs: filepath.Join(dir, "docs"), readme: readme, json: filepath.Join(dir, "results", "run.json")}
	if err := o.write(r, r, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"9,000 (8,000 to 10,000)", "x 1", "at least 1.70 times"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
	for _, name := range []string{"docs/performance.md", "docs/performance/drain.svg", "results/run.json"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	page, err := os.ReadFile(readme)
	if want := "before\n<!-- performance: written by \"make bench\" -->\n| Mailpouch | beside | times |\n|---|---|---:|\n| mails a second, 20 connections | the fastest of asynq + net/smtp, asynq + go-mail and BullMQ + Nodemailer, 20 open connections | 2 |\n\n**A quick run: few mails, so these ratios are rough.**\n<!-- /performance -->\nafter\n"; err != nil || string(page) != want {
		t.Errorf("README is %q, %v, want %q", page, err, want)
	}
	if err := os.WriteFile(readme, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.write(r, nil, io.Discard); err == nil {
		t.Error("a page without marks was written into")
	}
	if _, err := os.Stat(filepath.Join(dir, "docs/scale.md")); err == nil {
		t.Error("scale.md was written, though nothing was measured that it could reckon with")
	}
}

// The pages in docs and README are those that the kept results make, so that none is changed
// by hand.
func TestOptions_rewrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readme := filepath.Join(dir, "README.md")
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(readme, page, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--from", "../docs/performance/results.json", "--docs", filepath.Join(dir, "docs"), "--readme", readme}
	if err := run(t.Context(), args, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	r, err := report.ReadJSON("../docs/performance/results.json")
	if err != nil {
		t.Fatal(err)
	}
	r.Goals = scenario.Goals(r)
	if keys := report.Unexplained(r); len(keys) > 0 {
		t.Errorf("the goals %v are not met, and report/pages/bounds.md does not say what bounds them", keys)
	}
	for _, name := range []string{"README.md", "docs/performance.md", "docs/scale.md", "docs/performance/drain.svg", "docs/performance/bulk.svg"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(filepath.Join("..", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what docs/performance/results.json makes (%v): run make docs", name, err)
		}
		if text := name == "README.md" || name == "docs/performance.md"; text && bytes.Contains(got, []byte("A quick run")) != r.Quick {
			t.Errorf("%s says that the run was quick, or not, and it is: %v", name, r.Quick)
		}
	}
}
