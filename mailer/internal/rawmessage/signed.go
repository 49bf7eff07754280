package rawmessage

import (
	"slices"
	"strings"
)

func (fs Fields) named(name string) bool {
	return slices.ContainsFunc(fs, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

// coveredFields returns the fields that the DKIM signatures of a message cover (RFC 6376, 3.5, h=), by
// their names in lower case, and these signatures themselves.
func coveredFields(fields Fields) map[string]bool {
	var covered map[string]bool
	for _, f := range fields {
		if !strings.EqualFold(f.Name, "DKIM-Signature") {
			continue
		}
		if covered == nil {
			covered = map[string]bool{"dkim-signature": true}
		}
		for tag := range strings.SplitSeq(f.value(), ";") {
			if name, list, _ := strings.Cut(tag, "="); strings.Trim(name, " \t") == "h" {
				for name := range strings.SplitSeq(list, ":") {
					covered[strings.ToLower(strings.Trim(name, " \t"))] = true
				}
			}
		}
	}
	return covered
}
