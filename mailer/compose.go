package mailer

import (
	"cmp"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// draft is a message that has been found good: its header, and what its parts
// are. Everything that can be wrong with a message is found before there is a
// draft, so nothing is written of a bad one.
type draft struct {
	header       []byte // all fields but those of MIME
	cs           charset
	body         mediaType
	alternatives []mediaType // one for each
	attachments  []mediaType // one for each, empty where it has to be guessed

	raw    []byte    // not nil: the header is complete, and this is the body
	anew   bool      // but not: raw has to be encoded anew, with the fields that follow the header
	fields rawFields // of raw, if it is encoded anew
}

// compose checks the message and writes its header, behind what is in buf.
func (m *EmailMessage) compose(buf []byte) (*draft, error) {
	headers := m.sortedHeaders()
	if err := checkHeaders(headers); err != nil {
		return nil, err
	}
	d := &draft{}
	if err := m.readTypes(d); err != nil {
		return nil, err
	}
	if err := m.checkTexts(); err != nil {
		return nil, err
	}
	a, err := m.addresses()
	if err != nil {
		return nil, err
	}
	if len(m.Raw) > 0 {
		d.header = buf
		return d, m.composeRaw(d, a, headers)
	}
	h := headerWriter{buf: slices.Grow(buf, m.headerSize())}
	if err := m.writeHeader(&h, headers, a, d.cs); err != nil {
		return nil, err
	}
	if h.long != "" {
		return nil, &InvalidMessageError{Field: h.long, Reason: "makes a line of more than 998 octets"}
	}
	d.header = h.buf
	return d, nil
}

// namedHeader is an entry of Headers.
type namedHeader struct{ name, canonical, value string }

// sortedHeaders returns the entries of Headers in the order of their canonical names. Each name
// is made canonical once: there may be a great many of them.
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

func checkHeaders(headers []namedHeader) error {
	previous := ""
	for _, h := range headers {
		if err := checkHeaderName(h.name); err != nil {
			return err
		}
		if !isClean(h.value, withTab) {
			return checkText(headerField(h.name), h.value, withTab)
		}
		switch {
		case strings.EqualFold(h.name, previous):
			return &InvalidMessageError{Field: headerField(h.name), Reason: "is there twice, in different letter case"}
		case h.canonical == "Subject", h.canonical == "Mime-Version", strings.HasPrefix(h.canonical, "Content-"):
			return &InvalidMessageError{Field: headerField(h.name), Reason: "is written from the fields of the message and cannot be set"}
		case h.canonical == "Message-Id":
			if err := checkMessageID(headerField(h.name), h.value); err != nil {
				return err
			}
		}
		previous = h.name
	}
	return nil
}

// readTypes reads the charset and the types of all parts.
func (m *EmailMessage) readTypes(d *draft) (err error) {
	if err := checkText("charset", m.Charset, withoutTab); err != nil {
		return err
	}
	var ok bool
	if d.cs, ok = lookupCharset(m.Charset); !ok {
		return &InvalidMessageError{Field: "charset", Reason: "is not known"}
	}
	d.body = mediaType{value: "text/plain"}
	if m.ContentSubtype != "" && m.ContentSubtype != "plain" {
		if d.body, err = parseMediaType("content_subtype", "text/"+m.ContentSubtype); err != nil {
			return err
		}
	}
	for i, a := range m.Alternatives {
		media, err := parsePartType(indexed("alternatives", i, "mimetype"), a.Mimetype)
		if err != nil {
			return err
		}
		d.alternatives = append(d.alternatives, media)
	}
	for i, a := range m.Attachments {
		var media mediaType
		if a.Mimetype != "" {
			if media, err = parsePartType(indexed("attachments", i, "mimetype"), a.Mimetype); err != nil {
				return err
			}
		}
		d.attachments = append(d.attachments, media)
	}
	return nil
}

// parsePartType refuses what a leaf cannot be.
func parsePartType(field, s string) (mediaType, error) {
	media, err := parseMediaType(field, s)
	if err == nil && media.isMultipart() {
		err = &InvalidMessageError{Field: field, Reason: "cannot be a multipart"}
	}
	return media, err
}

// checkTexts checks what is neither an address nor a type.
func (m *EmailMessage) checkTexts() error {
	if err := checkText("subject", m.Subject, withTab); err != nil {
		return err
	}
	if err := checkMessageID("message_id", m.MessageID); err != nil {
		return err
	}
	if err := checkDate(m.Date); err != nil {
		return err
	}
	if err := checkBody("body", m.Body); err != nil {
		return err
	}
	for i, a := range m.Alternatives {
		if err := checkBody(indexed("alternatives", i, "content"), a.Content); err != nil {
			return err
		}
	}
	for i, a := range m.Attachments {
		if err := checkAttachment(i, a); err != nil {
			return err
		}
	}
	return nil
}

// maxFilename is a little more than file systems take (255 octets), and little
// enough for one line when every octet of it is percent-encoded.
const maxFilename = 300

func checkAttachment(i int, a Attachment) error {
	field := indexed("attachments", i, "filename")
	if err := checkText(field, a.Filename, withoutTab); err != nil {
		return err
	}
	if len(a.Filename) > maxFilename {
		return &InvalidMessageError{Field: field, Reason: "is longer than 300 octets"}
	}
	field = indexed("attachments", i, "content_id")
	if len(a.ContentID) > maxFilename {
		return &InvalidMessageError{Field: field, Reason: "is longer than 300 octets"}
	}
	return checkMessageID(field, a.ContentID)
}

// writeHeader writes all fields but those of MIME.
func (m *EmailMessage) writeHeader(h *headerWriter, headers []namedHeader, a addresses, cs charset) error {
	for _, f := range []struct {
		name, field string
		boxes       []mailbox
	}{
		{"From", "from_email", a.from}, {"To", "to", a.to}, {"Cc", "cc", a.cc}, {"Reply-To", "reply_to", a.replyTo},
	} {
		if err := m.writeAddresses(h, f.name, f.field, f.boxes, cs); err != nil {
			return err
		}
	}
	h.subject(m.Subject, cs)
	m.writeIdentity(h, cs)
	for _, other := range headers {
		switch other.canonical {
		case "From", "To", "Cc", "Reply-To", "Date", "Message-Id", "Bcc", "Resent-Bcc", "Return-Path":
			continue
		}
		if err := writeOther(h, other.name, other.value, cs); err != nil {
			return err
		}
	}
	return nil
}

// override finds what Headers says in place of a field that is made of others.
func (m *EmailMessage) override(name string) (value, field string, ok bool) {
	for n, v := range m.Headers {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return v, headerField(n), true
		}
	}
	return "", "", false
}

// writeAddresses writes From, To, Cc or Reply-To, or what Headers has instead: an
// empty To, Cc or Reply-To there leaves the field out, but not an empty From: a message
// always says whom it is from.
func (m *EmailMessage) writeAddresses(h *headerWriter, name, field string, boxes []mailbox, cs charset) error {
	value, theirs, ok := m.override(name)
	if ok && (name != "From" || !isBlank(value)) {
		return writeAddressText(h, name, theirs, value, cs)
	}
	if len(boxes) > 0 {
		h.addresses(name, field, slices.Values(boxes), cs)
	}
	return nil
}

// writeAddressText writes a field of addresses from a text. One that is no address list,
// such as "undisclosed-recipients:;", stays as it is if it is ASCII.
func writeAddressText(h *headerWriter, name, field, value string, cs charset) error {
	if isBlank(value) {
		return nil
	}
	n, _, reason := checkAddresses(value)
	switch {
	case reason == "" && n > 0:
		h.addresses(name, field, boxesOf(value), cs)
	case isASCII(value):
		h.text(name, field, value, cs)
	default:
		return &InvalidMessageError{Field: field, Reason: reason}
	}
	return nil
}

// writeIdentity writes Date and Message-ID, each if there is one.
func (m *EmailMessage) writeIdentity(h *headerWriter, cs charset) {
	if value, field, ok := m.override("Date"); ok && !isBlank(value) {
		h.text("Date", field, value, cs)
	} else if !m.Date.IsZero() {
		h.date(m.Date)
	}
	id, field, ok := m.override("Message-ID")
	if !ok || id == "" {
		id, field = m.MessageID, "message_id"
	}
	if id != "" {
		h.text("Message-ID", field, id, cs)
	}
}

func (h *headerWriter) date(t time.Time) {
	h.buf = append(h.buf, "Date: "...)
	h.buf = t.AppendFormat(h.buf, time.RFC1123Z)
	h.buf = append(h.buf, "\r\n"...)
}

func writeOther(h *headerWriter, name, value string, cs charset) error {
	if isAddressHeader(name) {
		return writeAddressText(h, name, headerField(name), value, cs)
	}
	h.text(name, headerField(name), value, cs)
	return nil
}

// isAddressHeader says whether a field holds addresses (RFC 5322, 3.6.2, 3.6.3 and 3.6.6).
func isAddressHeader(name string) bool {
	for _, with := range [...]string{"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"} {
		if len(name) == len(with) && strings.EqualFold(name, with) {
			return true
		}
	}
	return false
}
