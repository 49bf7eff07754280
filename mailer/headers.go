package mailer

import (
	"cmp"
	"net/textproto"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// namedHeader is an entry of Headers.
type namedHeader struct{ name, canonical, value string }

// sortedHeaders returns the entries of Headers in the order of their canonical names. Each name is
// made canonical only once, because there may be a great many of them.
func (m *EmailMessage) sortedHeaders() []namedHeader {
	all := make([]namedHeader, 0, len(m.Headers))
	for name, value := range m.Headers {
		all = append(all, namedHeader{name, textproto.CanonicalMIMEHeaderKey(name), value})
	}
	return merged(all, nil)
}

// merged are both, in the order of their canonical names.
func merged(a, b []namedHeader) []namedHeader {
	all := append(a, b...)
	slices.SortFunc(all, func(a, b namedHeader) int {
		return cmp.Or(strings.Compare(a.canonical, b.canonical), strings.Compare(a.name, b.name))
	})
	return all
}

// isWritten reports whether a field, by its canonical name, says what WriteTo writes. Other Content- fields, such as
// Content-Language (RFC 3282), say something of the message that only its author knows.
func isWritten(name string) bool {
	switch name {
	case "Subject", "Mime-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-Id", "Content-Length", "Content-Md5":
		return true
	}
	return false
}

// WithTrace returns a copy of the message with these fields in front of all others, in this order, as who takes a message on
// its way puts them there (RFC 5322, 3.6.7). A name may be there several times, and what a signature in the message covers stays
// as it is. It is for the sending side: neither JSON nor a queue keeps them.
func (m *EmailMessage) WithTrace(fields ...Field) *EmailMessage {
	c := *m
	c.trace = slices.Concat(fields, m.trace)
	return &c
}

// Trace returns the fields of WithTrace, which a backend that does not send the bytes of WriteTo needs.
func (m *EmailMessage) Trace() []Field { return slices.Clone(m.trace) }

// writeTrace checks and writes the fields of WithTrace.
func (m *EmailMessage) writeTrace(h *mimewriter.Header, cs charset.Charset) error {
	for _, f := range m.trace {
		if err := checkHeaders([]namedHeader{{f.Name, textproto.CanonicalMIMEHeaderKey(f.Name), f.Value}}); err != nil {
			return err
		}
		if err := writeField(h, f.Name, headerField(f.Name), f.Value, cs); err != nil {
			return err
		}
	}
	return nil
}

// writeField writes a field by the grammar that its name has.
func writeField(h *mimewriter.Header, name, field, value string, cs charset.Charset) error {
	if reason := headerfield.Write(h, name, field, value, cs); reason != "" {
		return &InvalidMessageError{Field: field, Reason: reason}
	}
	return nil
}

func checkHeaders(headers []namedHeader) error {
	previous := ""
	for _, h := range headers {
		if err := checkHeaderName(h.name); err != nil {
			return err
		}
		if !charset.IsClean(h.value, charset.WithTab) {
			return checkText(headerField(h.name), h.value, charset.WithTab)
		}
		switch {
		case strings.EqualFold(h.name, previous):
			return &InvalidMessageError{Field: headerField(h.name), Reason: "is there twice, in different letter case"}
		case isWritten(h.canonical):
			return &InvalidMessageError{Field: headerField(h.name), Reason: "is written from the fields of the message and cannot be set"}
		}
		previous = h.name
	}
	return nil
}

// override finds the entry of Headers that replaces a generated field.
func (m *EmailMessage) override(name string) (value, field string, ok bool) {
	for n, v := range m.Headers {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return v, headerField(n), true
		}
	}
	return "", "", false
}
