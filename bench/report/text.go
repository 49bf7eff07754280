package report

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Text is the run for a terminal.
func Text(r *Run) string {
	var out strings.Builder
	for _, s := range r.Scenarios {
		fmt.Fprintf(&out, "\n%s\n", s.Title)
		t := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
		fmt.Fprint(t, "  ")
		for _, m := range s.Metrics {
			fmt.Fprintf(t, "\t%s", m.Title)
		}
		fmt.Fprintln(t)
		for _, c := range s.Contenders {
			fmt.Fprintf(t, "  %s\t%s\n", strings.TrimSuffix(c.Name+", "+c.Settings, ", "), strings.Join(c.cells(s.Metrics), "\t"))
		}
		_ = t.Flush() // to a buffer
	}
	for _, p := range r.Profiles {
		fmt.Fprintf(&out, "\nWhere the time goes: %s\n", p.Title)
		t := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
		for _, part := range p.Parts {
			fmt.Fprintf(t, "  %s\t%.0f %%\tin the system %.0f %%\t%s us a mail\n", part.Name, 100*part.Share, 100*part.Syscall, Number(part.Share*p.PerMail))
		}
		_ = t.Flush()
	}
	fmt.Fprintf(&out, "\nThe goals\n")
	t := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	for _, g := range r.Goals {
		if !g.Missing {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", g.Text, g.Wanted, strings.Join(g.Measured, " | "), strings.Trim(g.Verdict(), "*"))
		}
	}
	_ = t.Flush()
	return out.String()
}

// cells are the contender's values, one for each metric, or the reason why there are none.
func (c *Contender) cells(metrics []Metric) []string {
	cells := make([]string, 0, len(metrics))
	for _, m := range metrics {
		cells = append(cells, c.Stat(m.Key).String())
	}
	if c.Skipped != "" {
		cells[0] = "not measured: " + c.Skipped
	}
	return cells
}

// Compare shows the first metric of each contender in two runs, and the second run's as a
// multiple of the first one's.
func Compare(old, now *Run) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\nBeside the run of %s\n", old.Date.Format("2006-01-02 15:04"))
	t := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	for _, s := range now.Scenarios {
		key := s.Metrics[0]
		for _, c := range s.Contenders {
			a, b := old.Scenario(s.Name).Contender(c.Key).Stat(key.Key), c.Stat(key.Key)
			if a.N > 0 && b.N > 0 {
				fmt.Fprintf(t, "  %s\t%s\t%s\t%v\t%v\tx %s\n", s.Name, c.Name, key.Title, a, b, Number(b.Median/a.Median))
			}
		}
	}
	_ = t.Flush()
	return out.String()
}
