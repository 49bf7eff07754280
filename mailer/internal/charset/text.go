package charset

import "unicode/utf8"

// Whether a text may have tabs, for checkText and isClean.
const (
	WithTab    = true
	WithoutTab = false
)

// IsClean says whether checkText has nothing to say.
func IsClean(s string, tab bool) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c == 0x7f) && (c != '\t' || !tab) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// IsSpace reports whether c is white space in a line (RFC 5322, 3.2.2).
func IsSpace(c byte) bool { return c == ' ' || c == '\t' }
