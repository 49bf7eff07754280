package catcher

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// Print writes a message for people, in one Write: envelope, decoded header fields in
// their order, text parts as UTF-8, and a line for each attachment. What the
// message has of control characters, other than tab and the end of line, is made
// visible, so that no message can give commands to the terminal.
func Print(w io.Writer, m Message) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "---------- MESSAGE %d FOLLOWS ----------\n", m.Number)
	fmt.Fprintf(&out, "MAIL FROM:<%s>\n", oneLine(m.From))
	for _, to := range m.To {
		fmt.Fprintf(&out, "RCPT TO:<%s>\n", oneLine(to))
	}
	out.WriteByte('\n')
	decoded := Decode(m.Raw)
	for _, f := range decoded.Header {
		fmt.Fprintf(&out, "%s: %s\n", oneLine(f.Name), oneLine(f.Value))
	}
	out.WriteByte('\n')
	first := true
	for _, p := range decoded.Parts {
		if !p.Text {
			fmt.Fprintf(&out, "[%s: %s, %d bytes%s]\n",
				oneLine(cmp.Or(p.Filename, "unnamed")), oneLine(p.MediaType), len(p.Content), oneLine(p.Problem))
			continue
		}
		printText(&out, p, first)
		first = false
	}
	out.WriteString("------------ END MESSAGE ------------\n")
	_, err := w.Write(out.Bytes())
	return err
}

// printText prints a text. The first one needs no title if it is a plain one.
func printText(out *bytes.Buffer, p Part, first bool) {
	if !first || p.MediaType != "text/plain" || p.Problem != "" {
		fmt.Fprintf(out, "[%s%s]\n", oneLine(p.MediaType), oneLine(p.Problem))
	}
	text := string(p.Content)
	out.WriteString(redact.Visible(strings.ReplaceAll(text, "\r\n", "\n")))
	if !strings.HasSuffix(text, "\n") {
		out.WriteByte('\n')
	}
}
