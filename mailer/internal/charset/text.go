package charset

import "unicode/utf8"

// Whether IsClean lets tabs pass.
const (
	WithTab    = true
	WithoutTab = false
)

// IsClean reports whether a text may stand in a header: it is valid UTF-8 and has no C0 control
// character and no DEL, except tabs if tab is WithTab. Line ends beyond ASCII (U+0085, U+2028)
// pass, because they are written encoded.
func IsClean(s string, tab bool) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c == 0x7f) && (c != '\t' || !tab) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// IsASCII reports whether s has only ASCII characters.
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
