package rawmessage

import (
	"bytes"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// maxEncodedLine is how long a line in base64 or quoted-printable may be (RFC 2045, 6.7 and 6.8).
const maxEncodedLine = 76

// wrapBase64 writes base64 in lines that are short enough. What is not of its alphabet is for no
// reader (RFC 2045, 6.8).
func wrapBase64(w *mimewriter.Writer, body []byte) {
	column := 0
	for line := range mimewriter.Lines(body) {
		for _, c := range line {
			if !isBase64(c) {
				continue
			}
			if column == maxEncodedLine {
				w.Line("")
				column = 0
			}
			w.Buf = append(w.Buf, c)
			column++
		}
	}
	if column > 0 {
		w.Line("")
	}
}

func isBase64(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '='
}

// wrapQuoted writes quoted-printable in lines that are short enough, and encodes what somebody has
// forgotten to encode.
func wrapQuoted(w *mimewriter.Writer, body []byte) {
	for line, ended := range mimewriter.Lines(body) {
		line = bytes.TrimRight(line, " \t") // it is none of the text (RFC 2045, 6.7, rule 3)
		column := 0
		for len(line) > 0 && string(line) != "=" {
			unit, n := quotedUnit(line)
			if column+len(unit) > maxEncodedLine-len("=") {
				w.Line("=")
				column = 0
			}
			w.Buf = append(w.Buf, unit...)
			column += len(unit)
			line = line[n:]
		}
		w.Buf = append(w.Buf, line...)
		if ended {
			w.Line("")
		}
	}
}

// quotedUnit returns the first character of a line, encoded if it has to be, and how many bytes of
// the line it is.
func quotedUnit(line []byte) (unit []byte, n int) {
	const upperHex = "0123456789ABCDEF"
	c := line[0]
	switch {
	case c == '=' && len(line) > 2 && isHex(line[1]) && isHex(line[2]):
		return line[:3], 3
	case c != '=' && c >= ' ' && c <= '~' || charset.IsSpace(c):
		return line[:1], 1
	}
	return []byte{'=', upperHex[c>>4], upperHex[c&15]}, 1
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}
