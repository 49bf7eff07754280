package report

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// The block that WriteReadme writes stands between these lines.
const (
	readmeBegin = "<!-- performance: written by \"make bench\" -->\n"
	readmeEnd   = "<!-- /performance -->"
)

// WriteReadme writes the tables of the named scenarios, without their ranges, between two marks
// in a page that people read first.
func WriteReadme(path string, r *Run, scenarios ...string) error {
	page, err := os.ReadFile(path) //nolint:gosec // the page that was named
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(page, []byte(readmeBegin))
	_, after, ended := bytes.Cut(rest, []byte(readmeEnd))
	if !found || !ended {
		return fmt.Errorf("report: %s: it lacks the marks between which the results stand", path)
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(readmeBegin + r.short(scenarios) + readmeEnd)
	out.Write(after)
	return os.WriteFile(path, out.Bytes(), 0o644) //nolint:gosec // pages are for everybody
}

// short is the medians, two metrics of each scenario.
func (r *Run) short(scenarios []string) string {
	var out strings.Builder
	for _, name := range scenarios {
		s := r.Scenario(name)
		if s == nil {
			continue
		}
		shown := s.Metrics[:min(2, len(s.Metrics))]
		fmt.Fprintf(&out, "| %s |", s.Title)
		for _, m := range shown {
			fmt.Fprintf(&out, " %s |", m.Title)
		}
		fmt.Fprintf(&out, "\n|---|%s\n", strings.Repeat("---:|", len(shown)))
		for _, c := range s.Contenders {
			if c.Skipped != "" {
				continue
			}
			fmt.Fprintf(&out, "| %s |", c.Name)
			for _, m := range shown {
				fmt.Fprintf(&out, " %s |", Number(c.Stat(m.Key).Median))
			}
			out.WriteString("\n")
		}
		out.WriteString("\n")
	}
	return out.String()
}
