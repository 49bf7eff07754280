package catcher

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"mime"
	"strings"
)

// Print writes a message for people, in one Write: envelope, decoded header fields in
// their order, text parts as UTF-8, and a line for each attachment. What the
// message has of control characters, other than tab and the end of line, is made
// visible, so that no message can give commands to the terminal.
func Print(w io.Writer, m Message) error {
	var p printer
	fmt.Fprintf(&p.out, "---------- MESSAGE %d FOLLOWS ----------\n", m.Number)
	fmt.Fprintf(&p.out, "MAIL FROM:<%s>\n", oneLine(m.From))
	for _, to := range m.To {
		fmt.Fprintf(&p.out, "RCPT TO:<%s>\n", oneLine(to))
	}
	p.out.WriteByte('\n')
	header, body := split(m.Raw)
	for _, f := range header {
		fmt.Fprintf(&p.out, "%s: %s\n", oneLine(f.name), oneLine(decodeWords(f.value)))
	}
	p.out.WriteByte('\n')
	p.entity(header, body, 0)
	p.out.WriteString("------------ END MESSAGE ------------\n")
	_, err := w.Write(p.out.Bytes())
	return err
}

type printer struct {
	out  bytes.Buffer
	text bool // a text part has been printed
}

// maxDepth is how deep multiparts may be nested: more is no honest message.
const maxDepth = 20

// entity prints one node of the tree of parts (RFC 2045, 2.4).
func (p *printer) entity(header fields, body []byte, depth int) {
	mediatype, params := header.contentType()
	if boundary := params["boundary"]; strings.HasPrefix(mediatype, "multipart/") && boundary != "" && depth < maxDepth {
		for _, part := range parts(body, boundary) {
			h, b := split(part)
			p.entity(h, b, depth+1)
		}
		return
	}
	content, problem := decodeTransfer(header.get("Content-Transfer-Encoding"), body)
	disposition, dparams, _ := mime.ParseMediaType(header.get("Content-Disposition"))
	name := decodeWords(cmp.Or(dparams["filename"], params["name"]))
	if strings.HasPrefix(mediatype, "text/") && disposition != "attachment" && name == "" {
		p.textPart(mediatype, params["charset"], content, problem)
		return
	}
	fmt.Fprintf(&p.out, "[%s: %s, %d bytes%s]\n",
		oneLine(cmp.Or(name, "unnamed")), oneLine(mediatype), len(content), oneLine(problem))
}

// textPart prints a text. The first one needs no title if it is a plain one.
func (p *printer) textPart(mediatype, charset string, content []byte, problem string) {
	text, strange := decodeCharset(charset, content)
	if p.text || mediatype != "text/plain" || problem+strange != "" {
		fmt.Fprintf(&p.out, "[%s%s%s]\n", oneLine(mediatype), oneLine(problem), oneLine(strange))
	}
	p.text = true
	p.out.WriteString(visible(strings.ReplaceAll(text, "\r\n", "\n")))
	if !strings.HasSuffix(text, "\n") {
		p.out.WriteByte('\n')
	}
}
