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

// Highlight is a result for a page that people read first: a ratio of two medians.
type Highlight struct {
	What   string // was measured
	Beside string // the thing that it is compared with
	Ratio  string
}

// WriteReadme writes a short table between two marks in a page that people read first, and says so if it is of a quick run.
func WriteReadme(path string, quick bool, highlights []Highlight) error {
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
	out.WriteString(readmeBegin + table(highlights))
	if quick {
		out.WriteString("\n**A quick run: few mails, so these ratios are rough.**\n")
	}
	out.WriteString(readmeEnd)
	out.Write(after)
	return os.WriteFile(path, out.Bytes(), 0o644) //nolint:gosec // pages are for everybody
}

func table(highlights []Highlight) string {
	var out strings.Builder
	out.WriteString("| Mailpouch | beside | times |\n|---|---|---:|\n")
	for _, h := range highlights {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", h.What, h.Beside, h.Ratio)
	}
	return out.String()
}
