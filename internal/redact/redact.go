// Package redact makes texts of messages and servers fit for others to see: mail addresses
// without the person, nothing that a server repeats of a message, one line, and no longer than
// it has to be. Logs, pages and what asynq stores of a failure go through it.
package redact

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// address finds mail addresses in any text: a local part, quoted or not, and a domain, or
// both as they stand in a URL, where servers like to explain a refusal.
var address = regexp.MustCompile(`(?:"(?:[^"\\\r\n]|\\.)*"|[^\s<>()\[\],;:@"\\]+)@[^\s<>()\[\],;:@"'\\]+|` +
	`(?:"(?:[^"\\\r\n]|\\.)*"|[^\s<>()\[\],;:@"\\]+)@\[[^\]\s]*\]|` +
	`[\pL\d._%+-]+%40[\pL\d.-]+`)

// escapedAt is the @ of an address in a URL.
const escapedAt = "%40"

// Addresses masks every mail address in a text.
func Addresses(text string) string {
	if !strings.Contains(text, "@") && !strings.Contains(text, escapedAt) {
		return text // nearly always, in the reply to a mail that was accepted
	}
	return address.ReplaceAllStringFunc(text, local)
}

// Address masks one address as it stands in a message: ann@example.com, and Ann
// <ann@example.com> too, is a***@example.com. What is no address at all is masked as if it
// were a local part.
func Address(addr string) string {
	if i := strings.LastIndexByte(addr, '<'); i >= 0 {
		addr = strings.TrimRight(addr[i+1:], "> ")
	}
	addr = Line(strings.TrimSpace(addr))
	if !strings.Contains(addr, "@") {
		return strings.TrimSuffix(local(addr+"@"), "@")
	}
	return local(addr)
}

// local hides who it is and shows where.
func local(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		at = strings.LastIndex(addr, escapedAt)
	}
	first, size := utf8.DecodeRuneInString(strings.TrimPrefix(addr[:at], `"`))
	if size == 0 || first == utf8.RuneError {
		first = '*'
	}
	return string(first) + "***" + addr[at:]
}

// Line makes one line of s, without what is not to be seen: controls, and characters
// that turn the writing direction.
func Line(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return s // nearly always
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		case steers(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// Visible shows a text of many lines with what is not to be seen made visible: control
// characters other than tab and the end of line, characters that turn the writing
// direction, and bytes that are no UTF-8, in which old terminals see control characters too.
func Visible(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff && steers(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case unicode.IsControl(r) || steers(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// steers reports whether a character is not seen and changes how others are.
func steers(r rune) bool {
	return unicode.Is(unicode.Bidi_Control, r) || r == '\ufeff' || r == '\u2028' || r == '\u2029' || r >= 0xe0000 && r <= 0xe007f
}

// Cut shortens s to so many characters.
func Cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n++; n > limit {
			return strings.TrimRight(s[:i], " ") + "…"
		}
	}
	return s
}

// MaxReason is how many characters are kept of the reason why a message failed: enough for a
// hundred refused recipients.
const MaxReason = 4000

// Reason is Text for the reason why a message failed.
func Reason(s string, full bool) string { return Text(s, MaxReason, full) }

// Text is a text of a message or a server for one line: at most limit characters, none of
// which steers a terminal or turns the writing direction, and addresses in full only if
// full says so.
func Text(s string, limit int, full bool) string {
	// What is cut away needs no look, but half an address could not be told from a word.
	if most := 8 * limit; len(s) > most {
		s = s[:max(strings.LastIndexByte(s[:most], ' '), 0)] + "…"
	}
	s = Line(s)
	if !full {
		s = Addresses(s)
	}
	return Cut(s, limit)
}
