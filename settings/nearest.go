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
func (s Settings) unknown(environ []string) []string {
	known := s.variables()
	var warnings []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) || slices.Contains(known, name) || s.isOfBadName(name) {
			continue
		}
		warnings = append(warnings, name+": is not a setting and has no effect"+s.guess(name, known))
	}
	slices.Sort(warnings)
	return warnings
}

// guess says what a variable that nobody reads may have been meant for.
func (s Settings) guess(name string, known []string) string {
	like := s.nearestVariable(name, known)
	mailer, variable := missingMailer(name)
	switch {
	case mailer != "" && (like == "" || like == variable):
		return "; did you mean " + variable + ", or is " + mailer + " missing in " + namesVariable + "?"
	case like != "":
		return "; did you mean " + like + "?"
	}
	return ""
}

// variables returns the names of all variables that are read.
func (s Settings) variables() []string {
	var known []string
	for _, f := range fields(&s) {
		known = append(known, f.name)
	}
	for _, m := range s.named {
		for _, f := range mailerFields(&s, m.name) {
			known = append(known, f.name)
		}
	}
	return known
}

// isOfBadName says whether a variable is of a mailer whose name is refused. One word
// about that is enough.
func (s Settings) isOfBadName(variable string) bool {
	for _, name := range s.Delivery.Mailers {
		if strings.HasPrefix(variable, mailerPrefix(name)) && !slices.Contains(s.goodNames(), name) {
			return true
		}
	}
	return false
}

// nearestVariable compares what follows the prefix, which all have in common: that
// of a mailer, if the name begins with it.
func (s Settings) nearestVariable(name string, known []string) string {
	common := prefix
	for _, m := range s.named {
		if p := mailerPrefix(m.name); strings.HasPrefix(name, p) && len(p) > len(common) {
			common = p
		}
	}
	var ends []string
	for _, k := range known {
		if end, ok := strings.CutPrefix(k, common); ok {
			ends = append(ends, end)
		}
	}
	end := Nearest(strings.TrimPrefix(name, common), ends)
	if end == "" {
		return ""
	}
	return common + end
}

// missingMailer returns the name of the mailer for which this would be a variable, and
// the default mailer's variable for the same; "" if there is none.
func missingMailer(name string) (mailer, variable string) {
	for _, f := range mailerFields(&Settings{}, "x") {
		middle, ok := strings.CutSuffix(strings.TrimPrefix(name, prefix), strings.TrimPrefix(f.key, "EMAIL"))
		middle = strings.ReplaceAll(strings.ToLower(middle), "_", "-")
		if ok && checkName(middle, nil) == nil && (mailer == "" || len(middle) < len(mailer)) {
			mailer, variable = middle, f.key
		}
	}
	return mailer, variable
}
