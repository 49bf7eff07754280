package mailer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
)

// senderFields are the fields of a header that say who a message is from (RFC 5322, 3.6.2 and 3.6.6), and that of the envelope's sender.
var senderFields = []string{"From", "Sender", "Resent-From", "Resent-Sender", "Return-Path"}

// Senders returns the bare addresses of all whom the message says that it is from, each once: the sender of its envelope, and who is in the From and
// Sender of its header, also of a raw message, and in those of a resending. It is empty if the message says nothing of that. What cannot be read is
// an *InvalidMessageError, and so is a field that names nobody, such as "ann@example.com:;": another reader might see somebody there.
func (m *EmailMessage) Senders() ([]string, error) {
	var all []string
	add := func(field, text string) error {
		before := len(all)
		for box, reason := range address.Found(text) {
			if reason != "" {
				return &InvalidMessageError{Field: field, Reason: reason}
			}
			if box.Addr != "" {
				all = append(all, box.Addr)
			}
		}
		if len(all) == before && (text != "" || field == "raw") {
			return &InvalidMessageError{Field: field, Reason: fmt.Sprintf("says that it is from %.80q, which is nobody's address", text)}
		}
		return nil
	}
	for _, of := range []struct{ field, text string }{{"from_email", m.FromEmail}, {"verp", m.VERP}} {
		if err := add(of.field, of.text); err != nil {
			return nil, err
		}
	}
	isSender := func(name string) bool {
		return slices.ContainsFunc(senderFields, func(field string) bool { return strings.EqualFold(field, name) })
	}
	for name, value := range m.Headers {
		if !isSender(name) {
			continue
		}
		if strings.Trim(value, " \t") == "<>" { // the null sender
			continue
		}
		if err := add(headerField(name), value); err != nil {
			return nil, err
		}
	}
	if len(m.Raw) > 0 {
		fields, _, err := readRaw(m.Raw)
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			if !isSender(f.Name) || strings.EqualFold(f.Name, "Return-Path") { // which is left out
				continue
			}
			if err := add("raw", f.UTF8()); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
