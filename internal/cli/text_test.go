package cli

import (
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ give, want string }{
		{"550 no", "550 no"},
		{"a\r\nb\n\nc", "a; b; c"},
		{"a\x1b[2J\u009b1m\tb\x00", "a [2J 1m b "},
		{"a\u202egnp.exe\u2066\ufeff\U000e0041", "agnp.exe"},
		{"a\xffb", "a\ufffdb"},
	} {
		if got := Line(tt.give); got != tt.want {
			t.Errorf("Line(%q) = %q, want %q", tt.give, got, tt.want)
		}
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	const give = "a\x1b[31m\u009b1mß\r\n\tb\x00\u202e\U000e0041\xff\rc\n"
	const want = "a\\x1b[31m\\u009b1mß\n\tb\\x00\\u202e\\U000e0041\\xff\\x0dc\n"
	for size := 1; size <= len(give); size++ { // however it is cut into pieces
		var b strings.Builder
		w := &shown{w: &b}
		for rest := give; rest != ""; {
			part := rest[:min(size, len(rest))]
			rest = rest[len(part):]
			if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatalf("wrote %d of %d, %v", n, len(part), err)
			}
		}
		if b.String() != want {
			t.Errorf("in pieces of %d: %q, want %q", size, b.String(), want)
		}
	}
	var b strings.Builder
	if w := Shown(&b); w != &b {
		t.Error("a program gets another text than there is")
	}
}
