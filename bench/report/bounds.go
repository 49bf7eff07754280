package report

import (
	_ "embed"
	"slices"
	"strings"
)

// bounds is written by hand: what bounds the goals that are not met, and what was tried. A
// heading is the key of a goal, or several with commas between them.
//
//go:embed pages/bounds.md
var bounds string

// bound is what bounds one goal, or several.
type bound struct {
	Goals []string
	Text  string
}

// boundsOf is what bounds the goals that were measured and are not met.
func boundsOf(r *Run) []bound {
	texts := readBounds(bounds)
	var all []bound
	for _, g := range r.Goals {
		text := texts[g.Key]
		if text == "" || g.Met || g.Missing {
			continue
		}
		i := slices.IndexFunc(all, func(b bound) bool { return b.Text == text })
		if i < 0 {
			i = len(all)
			all = append(all, bound{Text: text})
		}
		all[i].Goals = append(all[i].Goals, g.Text)
	}
	return all
}

// Unexplained are the keys of the goals that were measured and are not met, and of which
// nobody has written what bounds them.
func Unexplained(r *Run) []string {
	texts := readBounds(bounds)
	var keys []string
	for _, g := range r.Goals {
		if !g.Met && !g.Missing && texts[g.Key] == "" {
			keys = append(keys, g.Key)
		}
	}
	return keys
}

// readBounds reads the texts by the keys of their headings.
func readBounds(page string) map[string]string {
	texts := map[string]string{}
	for _, section := range strings.Split("\n"+page, "\n## ")[1:] {
		heading, text, _ := strings.Cut(section, "\n")
		for key := range strings.SplitSeq(heading, ",") {
			texts[strings.TrimSpace(key)] = strings.Join(strings.Fields(text), " ")
		}
	}
	return texts
}
