package mailer

import (
	"bytes"
	"cmp"
	"io"
	"mime"
	"slices"
	"strings"
)

// A raw message is sent as it is, so that signatures stay valid. What is changed is
// outside of them, or could not be on the wire:
//
//   - line ends become CRLF
//   - Bcc, Resent-Bcc and Return-Path are left out
//   - From, Date and Message-ID are put in front where they are missing
//   - header fields with octets above 127 become what such fields of our own are:
//     encoded words, for not all servers on a message's way have SMTPUTF8
//   - if a line of the body has more than 998 octets, parts with such lines or with
//     octets above 127 are encoded anew, as RFC 6152 lets a relay do. A message with a
//     signed part is refused then.

// ParseRaw makes a message of a finished one (RFC 5322). Raw is data. To has the bare
// addresses of its To, Cc and Bcc, or, if it was resent, of the newest Resent-To,
// Resent-Cc and Resent-Bcc (RFC 5322, 3.6.6). FromEmail is the address of its Sender or
// From, or of those of the resending, empty if there is none. An error is a
// BadHeaderError or an InvalidMessageError.
func ParseRaw(data []byte) (*EmailMessage, error) {
	fields, _, err := readRaw(data)
	if err != nil {
		return nil, err
	}
	m := &EmailMessage{Raw: data}
	prefix := ""
	if resent := fields.resent(); len(resent) > 0 {
		fields, prefix = resent, "Resent-"
	}
	for _, name := range []string{"To", "Cc", "Bcc"} {
		for _, f := range fields {
			if !strings.EqualFold(f.name, prefix+name) {
				continue
			}
			for box, reason := range eachAddress(ungroup(f.utf8())) {
				if reason != "" {
					return nil, &InvalidMessageError{Field: "raw", Reason: "the field " + f.name + " " + reason}
				}
				m.To = append(m.To, box.addr)
			}
		}
	}
	m.To = unique(m.To, domainLower)
	for _, name := range []string{"From", "Sender"} { // a Sender is the better one
		at := slices.IndexFunc(fields, func(f rawField) bool { return strings.EqualFold(f.name, prefix+name) })
		if at < 0 {
			continue
		}
		authors := fields[at].utf8()
		if n, _, reason := checkAddresses(authors); reason == "" && n > 0 {
			for box := range boxesOf(authors) {
				m.FromEmail = box.addr
				break
			}
		}
	}
	return m, nil
}

// RawHeader returns the first field of that name in the header of Raw, unfolded and
// decoded for people, or "".
func (m *EmailMessage) RawHeader(name string) string {
	fields, _, _ := splitEntity(m.Raw)
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			text := f.utf8()
			if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
				return decoded
			}
			return text
		}
	}
	return ""
}

// readRaw splits a raw message and checks it.
func readRaw(raw []byte) (rawFields, []byte, error) {
	fields, body, reason := splitEntity(raw)
	if reason != "" {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	for _, f := range fields {
		for line := range f.lines() {
			for j := range len(line) {
				if c := line[j]; (c < ' ' || c == 0x7f) && c != '\t' {
					return nil, nil, &BadHeaderError{Field: "raw", Reason: "has the control character " + controlName(c) + " in the field " + f.name}
				}
			}
		}
	}
	if bytes.IndexByte(body, 0) >= 0 {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: "has a NUL in its body"}
	}
	if reason := structureReason(fields, body); reason != "" {
		return nil, nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	return fields, body, nil
}

// resent returns the fields of the newest resending: they stand together, each once,
// before those of older ones.
func (fs rawFields) resent() rawFields {
	isResent := func(f rawField) bool { return len(f.name) > 7 && strings.EqualFold(f.name[:7], "Resent-") }
	start := slices.IndexFunc(fs, isResent)
	if start < 0 {
		return nil
	}
	seen := map[string]bool{}
	for i, f := range fs[start:] {
		name := strings.ToLower(f.name)
		if !isResent(f) || seen[name] {
			return fs[start : start+i]
		}
		seen[name] = true
	}
	return fs[start:]
}

// ungroup takes the groups out of an address list (RFC 5322, 3.4): "name: a, b;"
// becomes "a, b,". A list that is broken stays so.
func ungroup(list string) string {
	out := make([]byte, 0, len(list))
	start := 0 // of the current entry, in out
	for list != "" {
		n := 1
		switch list[0] {
		case '"', '(', '<', '[':
			if n = closed(list); n == 0 {
				return string(out) + list
			}
			out = append(out, list[:n]...)
		case ':': // what stood before it is the group's name
			out = out[:start]
		case ';', ',':
			out = append(out, ',')
			start = len(out)
		default:
			out = append(out, list[0])
		}
		list = list[n:]
	}
	return string(out)
}

// closed is how long the quoted string, comment, address in angle brackets or address
// literal is that s begins with, or 0 if it does not end.
func closed(s string) int {
	p := addressParser{all: s, rest: s}
	switch s[0] {
	case '"':
		p.skipQuoted()
	case '(':
		p.skipComment()
	case '<':
		p.angleSpec()
	case '[':
		p.rest = s[strings.IndexByte(s, ']')+1:]
	}
	return len(p.all) - len(p.rest)
}

// composeRaw writes the header of a raw message behind d.header, and finds its body.
func (m *EmailMessage) composeRaw(d *draft, a addresses, headers []namedHeader) error {
	if err := m.checkAlone(headers); err != nil {
		return err
	}
	fields, body, err := readRaw(m.Raw)
	if err != nil {
		return err
	}
	header := m.Raw[:len(m.Raw)-len(body)]
	h := headerWriter{buf: slices.Grow(d.header, rawSize(header)+2*countEncoded(header))}
	m.addMissing(&h, fields, a, d.cs)
	fields = slices.DeleteFunc(fields, func(f rawField) bool {
		return isBlindCopy(f.name) || strings.EqualFold(f.name, "Return-Path")
	})
	if d.anew = hasLongLine(body); d.anew && fields.get("MIME-Version") == "" {
		h.buf = append(h.buf, "MIME-Version: 1.0\r\n"...)
	}
	d.header, d.raw = h.buf, body
	if body == nil {
		d.raw = []byte{}
	}
	// What has to be encoded anew is written twice, now to nobody: nothing may be written of a
	// message before all of it is known to be good, and it need not be kept for that.
	r := messageRewriter{keepSigned: true, output: output{w: io.Discard}}
	var ok bool
	if d.anew {
		d.fields = fields
		ok = r.content(fields, body, "text/plain", 0)
	} else {
		r.headerWriter = h
		ok = r.fields(fields, "")
		d.header = r.buf
	}
	if !ok || h.long != "" || r.long != "" {
		reason := cmp.Or(r.reason, "has a line of more than 998 octets that cannot be written in another way")
		return &InvalidMessageError{Field: "raw", Reason: reason}
	}
	return nil
}

// writeRaw writes a raw message.
func (d *draft) writeRaw(o output) (int64, error) {
	if d.anew {
		r := messageRewriter{output: o, keepSigned: true}
		r.content(d.fields, d.raw, "text/plain", 0)
		o = r.output
	} else {
		o.plain(d.raw, true)
	}
	o.flush()
	return o.n, o.err
}

// checkAlone refuses what Raw says itself.
func (m *EmailMessage) checkAlone(headers []namedHeader) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"subject", m.Subject != ""},
		{"body", m.Body != ""},
		{"reply_to", len(m.ReplyTo) > 0},
		{"attachments", len(m.Attachments) > 0},
		{"alternatives", len(m.Alternatives) > 0},
		{"content_subtype", m.ContentSubtype != "" && m.ContentSubtype != "plain"},
	} {
		if f.set {
			return &InvalidMessageError{Field: f.name, Reason: "cannot be given together with raw, which says it itself"}
		}
	}
	for _, h := range headers {
		if !strings.EqualFold(h.name, "Return-Path") {
			return &InvalidMessageError{Field: headerField(h.name), Reason: "cannot be given together with raw: only Return-Path can"}
		}
	}
	return nil
}

// addMissing writes what every message has to have (RFC 5322, 3.6) and Message-ID.
func (m *EmailMessage) addMissing(h *headerWriter, fields rawFields, a addresses, cs charset) {
	missing := func(name string) bool {
		return !slices.ContainsFunc(fields, func(f rawField) bool { return strings.EqualFold(f.name, name) })
	}
	if missing("From") && len(a.from) > 0 {
		h.addresses("From", "from_email", slices.Values(a.from), cs)
	}
	if missing("Date") && !m.Date.IsZero() {
		h.date(m.Date)
	}
	if missing("Message-ID") && m.MessageID != "" {
		h.text("Message-ID", "message_id", m.MessageID, cs)
	}
}

func hasLongLine(text []byte) bool {
	for line := range lines(text) {
		if len(line) > maxLine {
			return true
		}
	}
	return false
}

// rawUTF8 says whether an address in the header of Raw has a local part that is not ASCII.
func (m *EmailMessage) rawUTF8() bool {
	fields, _, _ := splitEntity(m.Raw)
	return slices.ContainsFunc(fields, func(f rawField) bool {
		if !isAddressHeader(f.name) || isASCII(f.text) {
			return false
		}
		_, utf8, reason := checkAddresses(f.utf8())
		return reason == "" && utf8
	})
}
