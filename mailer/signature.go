package mailer

import (
	"bytes"
	"slices"

	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// WithSignature returns a copy of the message that is written with fields before all others (RFC 5322, 3.6.7): whole header fields,
// each line with its CRLF, such as a DKIM-Signature. What follows them is the same, byte for byte. WriteText writes such a
// message as WriteTo does, since a signature is only good for those bytes.
//
// It is for the side that sends, after all that changes a message: its JSON does not have these fields.
func (m *EmailMessage) WithSignature(fields []byte) *EmailMessage {
	c := *m
	c.signature = slices.Concat(fields, m.signature)
	return &c
}

// checkSignature accepts whole lines of a header that begin with a field.
func checkSignature(fields []byte) error {
	invalid := func(reason string) error { return &InvalidMessageError{Field: "signature", Reason: reason} }
	for first := true; len(fields) > 0; first = false {
		line, rest, ended := bytes.Cut(fields, []byte("\r\n"))
		name, _, found := bytes.Cut(line, []byte(":"))
		continued := len(bytes.TrimLeft(line, " \t")) > 0 && (line[0] == ' ' || line[0] == '\t')
		switch {
		case !ended:
			return invalid("does not end with CRLF")
		case len(line) > mimewriter.MaxLine:
			return invalid("has a line of more than 998 octets")
		case bytes.ContainsFunc(line, func(r rune) bool { return (r < ' ' && r != '\t') || r > '~' }):
			return &BadHeaderError{Field: "signature", Reason: "has a character that is not printable ASCII"}
		case first && continued, !continued && (!found || checkHeaderName(string(name)) != nil):
			return invalid("has a line that is no header field")
		}
		fields = rest
	}
	return nil
}
