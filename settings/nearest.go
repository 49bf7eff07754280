package settings

import (
	"slices"
	"strings"
)

// Nearest returns the known name that a mistyped one was most likely meant to be, or
// "" if none is like it. A name that is the beginning or the end of a known one is
// like it; so is one that differs in one letter of three.
func Nearest(name string, known []string) string {
	best, bestDistance := "", 0
	for _, k := range known {
		d := distance(name, k)
		part := len(name) >= 3 && (strings.HasPrefix(k, name) || strings.HasSuffix(k, name))
		if !part && d > max(1, len(name)/3) {
			continue
		}
		if best == "" || d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance counts the letters to be put in, taken out, replaced or swapped with their
// neighbour to make b of a.
func distance(a, b string) int {
	before := make([]int, len(b)+1) // the row before the last one
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := last[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, replace)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

const prefix = "EMAIL_"

// unknown warns of the EMAIL_ variables in environ (as os.Environ gives it) that this
// project does not read. Variables without that prefix are other programs' business.
func unknown(environ []string) []string {
	all := fields(&Settings{})
	known := make([]string, len(all))
	for i, f := range all {
		known[i] = f.name
	}
	var warnings []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) || slices.Contains(known, name) {
			continue
		}
		text := name + ": is not a setting and has no effect"
		if like := nearestVariable(name, known); like != "" {
			text += "; did you mean " + like + "?"
		}
		warnings = append(warnings, text)
	}
	slices.Sort(warnings)
	return warnings
}

// nearestVariable compares what follows the prefix, which all have in common.
func nearestVariable(name string, known []string) string {
	var ends []string
	for _, k := range known {
		if end, ok := strings.CutPrefix(k, prefix); ok {
			ends = append(ends, end)
		}
	}
	end := Nearest(strings.TrimPrefix(name, prefix), ends)
	if end == "" {
		return ""
	}
	return prefix + end
}
