package redact

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, give, want string }{
		{"none", "451 4.7.1 Try later", "451 4.7.1 Try later"},
		{"in brackets", "550 <bob@example.com>: unknown", "550 <b***@example.com>: unknown"},
		{"in an error", "RCPT <bob@example.com>: 550 bob@example.com is unknown", "RCPT <b***@example.com>: 550 b***@example.com is unknown"},
		{"one that returns bounces", "MAIL FROM:<bounce+bob=example.org@example.com>", "MAIL FROM:<b***@example.com>"},
		{"in a link", "550 see https://spf.example/why?id=bob%40example.com&ip=192.0.2.1", "550 see https://spf.example/why?id=b***%40example.com&ip=192.0.2.1"},
		{"an at alone", "meet @ noon, 40%40", "meet @ noon, 40%40"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Addresses(tt.give); got != tt.want {
				t.Errorf("Addresses(%q) = %q, want %q", tt.give, got, tt.want)
			}
		})
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, give string
		limit      int
		want       string
	}{
		{"short", "abc", 3, "abc"}, {"long", "abcd", 3, "abc…"}, {"no half character", "äöüß", 2, "äö…"}, {"no blank before the dots", "ab cd", 3, "ab…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Cut(tt.give, tt.limit); got != tt.want {
				t.Errorf("Cut(%q, %d) = %q, want %q", tt.give, tt.limit, got, tt.want)
			}
		})
	}
}

// FuzzText: whatever comes in, what goes out is one line that shows no address.
func FuzzText(f *testing.F) {
	f.Add("550 <bob@example.com>: unknown")
	f.Add(`"a\"b"@x`)
	f.Add("@@@\x00")
	f.Add("bob%40example.com")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Text(s, 50, false), Cut(Address(s), 50)} {
			if !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x00\x1b") || utf8.RuneCountInString(got) > 51 {
				t.Errorf("%q becomes %q", s, got)
			}
			for _, found := range address.FindAllString(got, -1) {
				if !strings.Contains(found, "***") {
					t.Errorf("%q becomes %q, which shows %q", s, got, found)
				}
			}
		}
	})
}
