package settings

import (
	"strings"
)

// Nearest returns the known name that is most like name, which may be mistyped, or "" if none
// is. A name that is the beginning or the end of a known one (and has three letters or more) is
// like it; so is one in which at most every third letter differs.
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

// distance counts the letters to insert, delete, replace or swap with their neighbour to turn a
// into b.
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
