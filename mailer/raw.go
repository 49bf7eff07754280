package mailer

import (
	"bytes"
	"mime"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/rawmessage"
)

// A raw message is sent as it is, so that signatures stay valid. Only this is changed, because
// signatures do not cover it or SMTP cannot carry it:
//
//   - line ends become CRLF
//   - Bcc, Resent-Bcc and Return-Path are left out
//   - From, Date and Message-ID are put in front where they are missing
//   - header fields with bytes above 127 become encoded words, as in our own messages, because
//     not all servers on a message's way have SMTPUTF8
//   - if a line of the body has more than 998 octets (RFC 5322, 2.1.1), parts with such lines
//     or with octets above 127 are encoded anew, as RFC 6152 lets a relay do. A message with
//     a signed part is refused then.

// ParseRaw returns an EmailMessage that sends a finished message (RFC 5322). Its Raw is data. Its
// To has the bare addresses in the To, Cc and Bcc of data or, if data was resent, in the newest
// Resent-To, Resent-Cc and Resent-Bcc (RFC 5322, 3.6.6). Its FromEmail is the address in Sender
// or From, or in those of the resending, and empty if there is none. An error is a
// *BadHeaderError or an *InvalidMessageError.
func ParseRaw(data []byte) (*EmailMessage, error) {
	fields, _, err := readRaw(data)
	if err != nil {
		return nil, err
	}
	m := &EmailMessage{Raw: data}
	prefix := ""
	if resent := fields.Resent(); len(resent) > 0 {
		fields, prefix = resent, "Resent-"
	}
	for _, name := range []string{"To", "Cc", "Bcc"} {
		for _, f := range fields {
			if !strings.EqualFold(f.Name, prefix+name) {
				continue
			}
			for box, reason := range address.Each(address.Ungroup(f.UTF8())) {
				if reason != "" {
					return nil, &InvalidMessageError{Field: "raw", Reason: "the field " + f.Name + " " + reason}
				}
				m.To = append(m.To, box.Addr)
			}
		}
	}
	m.To = address.Unique(m.To, address.LowerDomain)
	for _, name := range []string{"From", "Sender"} { // a Sender is the better one
		at := slices.IndexFunc(fields, func(f rawmessage.Field) bool { return strings.EqualFold(f.Name, prefix+name) })
		if at < 0 {
			continue
		}
		authors := fields[at].UTF8()
		if n, _, reason := address.Check(authors); reason == "" && n > 0 {
			for box := range address.All(authors) {
				m.FromEmail = box.Addr
				break
			}
		}
	}
	return m, nil
}

// RawHeader returns the value of the first field of that name in the header of Raw, unfolded and
// with its encoded words decoded, or "".
func (m *EmailMessage) RawHeader(name string) string {
	fields, _, _ := rawmessage.Split(m.Raw)
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			text := f.UTF8()
			if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
				return decoded
			}
			return text
		}
	}
	return ""
}

// readRaw splits a raw message and checks it.
func readRaw(raw []byte) (rawmessage.Fields, []byte, error) {
	fields, body, reason := rawmessage.Split(raw)
	if reason != "" {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	for _, f := range fields {
		for line := range f.Lines() {
			for j := range len(line) {
				if c := line[j]; (c < ' ' || c == 0x7f) && c != '\t' {
					return nil, nil, &BadHeaderError{Field: "raw", Reason: "has the control character " + controlName(c) + " in the field " + f.Name}
				}
			}
		}
	}
	if bytes.IndexByte(body, 0) >= 0 {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: "has a NUL in its body"}
	}
	if reason := rawmessage.StructureReason(fields, body); reason != "" {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	return fields, body, nil
}
