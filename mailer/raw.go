package mailer

import (
	"bytes"
	"mime"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/rawmessage"
)

// A raw message is sent as it is, so that signatures stay valid. Only this is changed, because
// signatures do not cover it or SMTP cannot carry it:
//
//   - line ends become CRLF
//   - Bcc, Resent-Bcc and Return-Path are left out
//   - From, Date and Message-ID are put in front where they are missing
//   - blanks before the colon of a field are left out
//   - header fields with bytes above 127 become encoded words, as in our own messages, because
//     not all servers on a message's way have SMTPUTF8; what was encoded already stays so
//   - a header line of more than 998 octets is folded, or broken where it cannot be
//   - if a line of the body has more than 998 octets (RFC 5322, 2.1.1), parts with such lines
//     or with octets above 127 are encoded anew, as RFC 6152 lets a relay do
//   - for a server without 8BITMIME, parts with octets above 127 are (EncodeBody)
//
// What a signature covers is not changed: a message is refused that would need it.

// ParseRaw returns an EmailMessage that sends a finished message (RFC 5322). Its Raw is data. Its
// To has the bare addresses in the To, Cc and Bcc of data or, if data was resent, in the newest
// Resent-To, Resent-Cc and Resent-Bcc (RFC 5322, 3.6.6). They are read as Postfix reads them: a name may
// look like an address, and a domain may end in a dot. Its FromEmail is the address in Sender
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
			for box, reason := range address.Found(f.UTF8()) {
				if reason != "" {
					return nil, &InvalidMessageError{Field: "raw", Reason: "the field " + f.Name + " " + reason}
				}
				if box.Addr != "" { // an empty group
					m.To = append(m.To, box.Addr)
				}
			}
		}
	}
	m.To = address.Unique(m.To, address.LowerDomain)
	for _, name := range []string{"From", "Sender"} { // a Sender is the better one
		at := slices.IndexFunc(fields, func(f rawmessage.Field) bool { return strings.EqualFold(f.Name, prefix+name) })
		if at < 0 {
			continue
		}
		for box, reason := range address.Found(fields[at].UTF8()) {
			if reason == "" && box.Addr != "" {
				m.FromEmail = box.Addr
			}
			break
		}
	}
	return m, nil
}

// QualifyRaw returns data, a finished message (RFC 5322), with domain behind each address of its From,
// Sender, Reply-To, To and Cc, and of those of a resending, that has none: "root" is "root@domain" then,
// as it is for sendmail. A message with a signature that could cover its header (DKIM, S/MIME, OpenPGP)
// is returned as it is, and so is what is no message.
func QualifyRaw(data []byte, domain string) []byte { return rawmessage.Qualify(data, domain) }

// EncodeBody returns a finished message, as WriteTo writes it, for a mail server that takes no bytes above 127 (one
// without 8BITMIME, RFC 6152): parts with such bytes are in quoted-printable, or in base64 if they are no text, and
// headers of parts have encoded words. A reader sees the same. The error, an *InvalidMessageError, says why that
// cannot be: a signature covers what would change, or what is to be encoded breaks the rules of MIME. The same
// message gives the same bytes each time.
func EncodeBody(message []byte) ([]byte, error) {
	encoded, reason := rawmessage.Encode(message)
	if reason != "" {
		return nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	return encoded, nil
}

// RawHeader returns the value of the first field of that name in the header of Raw, unfolded and
// with its encoded words decoded, or "".
func (m *EmailMessage) RawHeader(name string) string {
	fields, _, _ := rawmessage.Split(m.Raw)
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			text := f.UTF8()
			if decoded, err := (&mime.WordDecoder{CharsetReader: charset.NewReader}).DecodeHeader(text); err == nil {
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
