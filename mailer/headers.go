package mailer

import (
	"cmp"
	"net/textproto"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
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
