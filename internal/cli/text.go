package cli

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// What the commands print may come from strangers: a server's reply, a subject, an address,
// the name of a file, anything in Redis. All of it goes through Line or Shown, so that none
// of it can control the terminal or pretend to be something else.

// Line is a text for one line of what a command prints.
func Line(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return redact.Line(strings.Join(lines, "; "))
}

// Shown returns a writer for whole messages. If w is a terminal, control characters are made
// visible. A program and a file get the message as it is.
func Shown(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return &shown{w: w}
	}
	return w
}

type shown struct {
	w    io.Writer
	rest []byte // an incomplete character or line end, to be completed by the next Write
}

// Write implements io.Writer.
func (s *shown) Write(text []byte) (int, error) {
	whole := append(s.rest, text...)
	cut := len(whole) - begun(whole)
	s.rest = bytes.Clone(whole[cut:])
	_, err := io.WriteString(s.w, redact.Visible(strings.ReplaceAll(string(whole[:cut]), "\r\n", "\n")))
	return len(text), err
}

// begun is how many bytes at the end of text are an incomplete character or line end.
func begun(text []byte) int {
	if bytes.HasSuffix(text, []byte("\r")) {
		return 1
	}
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}
