package transport

import (
	"strings"
	"testing"
)

// TestAppendStuffed: undoing it, as a server does, gives what was there.
func TestAppendStuffed(t *testing.T) {
	for _, s := range []string{"", ".\r\n", "..\r\n", "a\r\n.\r\n", "a\r\n..\r\n.\r\n.b\r\n", "a.b\r\n", ".\r\n.\r\n"} {
		stuffed := string(appendStuffed(nil, []byte(s)))
		var lines []string
		for line := range strings.Lines(stuffed) {
			if line == ".\r\n" {
				t.Errorf("%q ends early: %q", s, stuffed)
			}
			lines = append(lines, strings.TrimPrefix(line, "."))
		}
		if got := strings.Join(lines, ""); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}
