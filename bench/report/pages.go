package report

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed pages/*.tmpl
var pages embed.FS

// WritePages writes performance.md into dir, and scale.md if all that it reckons with was
// measured.
func WritePages(dir string, r *Run, costs Costs) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pages are for everybody
		return err
	}
	if err := writePage(dir, "performance.md", performance(r)); err != nil {
		return err
	}
	if !costs.complete() {
		return nil
	}
	return writePage(dir, "scale.md", scale(costs))
}

func writePage(dir, name string, data any) error {
	t, err := template.New(name+".tmpl").Funcs(template.FuncMap{
		"number":  Number,
		"percent": func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) },
		"times": func(share, all float64) string {
			if all == 0 {
				return "–"
			}
			return Number(share * all)
		},
	}).ParseFS(pages, "pages/"+name+".tmpl")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o644) //nolint:gosec // pages are for everybody
}

// page is what performance.md is made of.
type page struct {
	Run     *Run
	Machine string
	Rounds  int
	Limits  []limit
	Bounds  []bound
}

func performance(r *Run) page {
	m := r.Machine
	words := []string{fmt.Sprintf("%d processors", m.Cores)}
	if m.CPU != "" {
		words[0] += " (" + m.CPU + ")"
	}
	if m.Memory != "" {
		words = append(words, m.Memory+" of memory")
	}
	p := page{Run: r, Machine: strings.Join(words, ", "), Limits: limits(r), Bounds: boundsOf(r)}
	for _, s := range r.Scenarios {
		for _, c := range s.Contenders {
			p.Rounds = max(p.Rounds, c.Stat(s.Metrics[0].Key).N)
		}
	}
	return p
}

// Drawn reports whether the scenario has a plot.
func (s *Scenario) Drawn() bool { return len(s.measured()) > 0 }

// Set reports whether any contender has settings to show.
func (s *Scenario) Set() bool {
	return slices.ContainsFunc(s.Contenders, func(c *Contender) bool { return c.Settings != "" })
}

// Tried is what was measured to choose the settings.
func (s *Scenario) Tried() string {
	var all []string
	for _, c := range s.Contenders {
		var trials []string
		for _, t := range c.Trials {
			trials = append(trials, fmt.Sprintf("%s %s", t.Settings, Number(t.Value)))
		}
		if len(trials) > 0 {
			all = append(all, c.Name+": "+strings.Join(trials, ", "))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return s.Metrics[0].Title + " of " + strings.Join(all, "; ")
}

// Cells is for the template.
func (c *Contender) Cells(metrics []Metric) []string { return c.cells(metrics) }
