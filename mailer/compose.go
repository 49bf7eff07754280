package mailer

import (
	"errors"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// draft is a message that was checked: its header, and the types of its parts. Everything that
// can be wrong with a message is found before there is a draft, so that nothing is written of a
// bad one.
type draft struct {
	header       []byte // all fields but those of MIME
	cs           charset.Charset
	body         mimewriter.MediaType
	alternatives []mimewriter.MediaType // one for each
	attachments  []mimewriter.MediaType // one for each, empty where it has to be guessed

	raw *rawDraft // not nil: the message is this, and nothing else
}

// compose checks the message and writes its header, behind what is in buf.
func (m *EmailMessage) compose(buf []byte) (*draft, error) {
	headers := m.sortedHeaders()
	if err := checkHeaders(headers); err != nil {
		return nil, err
	}
	list, err := m.listHeaders()
	if err != nil {
		return nil, err
	}
	headers = merged(headers, list)
	d := &draft{}
	if err := m.readTypes(d); err != nil {
		return nil, err
	}
	if err := m.checkTexts(); err != nil {
		return nil, err
	}
	if err := checkSignature(m.signature); err != nil {
		return nil, err
	}
	a, err := m.addresses()
	if err != nil {
		return nil, err
	}
	if len(m.Raw) > 0 {
		if err := checkContentID("message_id", m.MessageID); err != nil { // it may be whatever the message has
			return nil, err
		}
		d.raw, err = m.composeRaw(buf, a, headers, d.cs)
		return d, err
	}
	const others = 320 // bytes of From, Date, Message-ID and what most messages have
	h := mimewriter.Header{Buf: slices.Grow(buf, m.headerSize()+others)}
	if err := m.writeHeader(&h, headers, a, d.cs); err != nil {
		return nil, err
	}
	if h.Long != "" {
		return nil, &InvalidMessageError{Field: h.Long, Reason: "makes a line of more than 998 octets"}
	}
	d.header = h.Buf
	return d, nil
}

// readTypes reads the charset and the types of all parts.
func (m *EmailMessage) readTypes(d *draft) (err error) {
	if err := checkText("charset", m.Charset, charset.WithoutTab); err != nil {
		return err
	}
	var ok bool
	if d.cs, ok = charset.Lookup(m.Charset); !ok {
		return &InvalidMessageError{Field: "charset", Reason: "is not known"}
	}
	d.body = mimewriter.MediaType{Value: "text/plain"}
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
		var media mimewriter.MediaType
		if a.Mimetype != "" {
			if media, err = parsePartType(indexed("attachments", i, "mimetype"), a.Mimetype); err != nil {
				return err
			}
		}
		d.attachments = append(d.attachments, media)
	}
	return nil
}

// parseMediaType reads what an author wrote as the type of field.
func parseMediaType(field, s string) (mimewriter.MediaType, error) {
	if err := checkText(field, s, charset.WithoutTab); err != nil {
		return mimewriter.MediaType{}, err
	}
	media, err := mimewriter.ParseMediaType(s)
	switch {
	case errors.Is(err, mimewriter.ErrParameter):
		return media, &BadHeaderError{Field: field, Reason: err.Error()}
	case err != nil:
		return media, &InvalidMessageError{Field: field, Reason: err.Error()}
	}
	return media, nil
}

// parsePartType reads the type of a part that has no parts of its own.
func parsePartType(field, s string) (mimewriter.MediaType, error) {
	media, err := parseMediaType(field, s)
	if err == nil && media.IsMultipart() {
		err = &InvalidMessageError{Field: field, Reason: "cannot be a multipart"}
	}
	return media, err
}

// checkTexts checks everything that is neither an address nor a type.
func (m *EmailMessage) checkTexts() error {
	if err := checkText("subject", m.Subject, charset.WithTab); err != nil {
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

// Most bytes of a file name and of a content ID. File systems take names of 255 characters, each of up
// to four bytes.
const (
	maxFilename  = 255 * utf8.UTFMax
	maxContentID = 300
)

func checkAttachment(i int, a Attachment) error {
	field := indexed("attachments", i, "filename")
	if err := checkText(field, a.Filename, charset.WithoutTab); err != nil {
		return err
	}
	if len(a.Filename) > maxFilename {
		return &InvalidMessageError{Field: field, Reason: "is longer than " + strconv.Itoa(maxFilename) + " bytes"}
	}
	field = indexed("attachments", i, "content_id")
	if len(a.ContentID) > maxContentID {
		return &InvalidMessageError{Field: field, Reason: "is longer than " + strconv.Itoa(maxContentID) + " bytes"}
	}
	return checkContentID(field, a.ContentID)
}

// writeHeader writes all fields but those of MIME.
func (m *EmailMessage) writeHeader(h *mimewriter.Header, headers []namedHeader, a addresses, cs charset.Charset) error {
	if err := m.writeTrace(h, cs); err != nil {
		return err
	}
	for _, f := range []struct {
		name, field string
		boxes       []address.Mailbox
	}{
		{"From", "from_email", a.from}, {"Sender", "from_email", m.missingSender("From", a)},
		{"To", "to", a.to}, {"Cc", "cc", a.cc}, {"Reply-To", "reply_to", a.replyTo},
	} {
		if err := m.writeAddresses(h, f.name, f.field, f.boxes, cs); err != nil {
			return err
		}
	}
	h.Subject(m.Subject, cs)
	if err := m.writeIdentity(h, cs); err != nil {
		return err
	}
	for _, other := range headers {
		switch other.canonical {
		case "From", "Sender", "To", "Cc", "Reply-To", "Date", "Message-Id", "Bcc", "Resent-Bcc", "Return-Path":
			continue
		case "Resent-Sender":
			if resent, _, _ := m.override("Resent-From"); !isBlank(resent) {
				continue // it stands beside it
			}
		}
		if err := writeField(h, other.name, headerField(other.name), other.value, cs); err != nil {
			return err
		}
		if other.canonical == "Resent-From" && !isBlank(other.value) {
			if err := m.writeAddresses(h, "Resent-Sender", "from_email", m.missingSender("Resent-From", a), cs); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeAddresses writes From, Sender, To, Cc, Reply-To or Resent-Sender, or what Headers has instead. An empty
// To, Cc or Reply-To there leaves the field out. An empty From does not, because every message has
// one, nor an empty Sender, where it is needed.
func (m *EmailMessage) writeAddresses(h *mimewriter.Header, name, field string, boxes []address.Mailbox, cs charset.Charset) error {
	value, theirs, ok := m.override(name)
	if needed := name == "From" || name == "Sender" || name == "Resent-Sender"; ok && (!needed || !isBlank(value)) {
		return writeField(h, name, theirs, value, cs)
	}
	if len(boxes) > 0 {
		h.Addresses(name, field, boxes, cs)
	}
	return nil
}

// missingSender is the Sender of a message by several authors, who are in the From of Headers: such a
// message has to say which one of them, or who else, has sent it (RFC 5322, 3.6.2, and 3.6.6 for
// Resent-From). It is empty for other messages.
func (m *EmailMessage) missingSender(name string, a addresses) []address.Mailbox {
	from, _, ok := m.override(name)
	if !ok {
		return nil
	}
	return senderOf(from, a)
}

// senderOf is missingSender for a list of authors.
func senderOf(authors string, a addresses) []address.Mailbox {
	if n, _, _ := address.Check(authors); n < 2 {
		return nil
	}
	if len(a.from) > 0 {
		return a.from
	}
	for box := range address.All(authors) {
		if box.Addr != "" {
			return []address.Mailbox{box.Alone()}
		}
	}
	return nil
}

// writeIdentity writes Date and Message-ID, each if there is one.
func (m *EmailMessage) writeIdentity(h *mimewriter.Header, cs charset.Charset) error {
	if value, field, ok := m.override("Date"); ok && !isBlank(value) {
		if err := writeField(h, "Date", field, value, cs); err != nil {
			return err
		}
	} else if !m.Date.IsZero() {
		h.Date(m.Date)
	}
	id, field, ok := m.override("Message-ID")
	if !ok || id == "" {
		id, field = m.MessageID, "message_id"
	}
	if id == "" {
		return nil
	}
	whole, reason := headerfield.ID(id)
	if reason != "" {
		return fieldError(field, id, reason)
	}
	h.Text("Message-ID", field, whole, cs)
	return nil
}

// Validate checks that the message can be rendered and addressed. An error is a
// *BadHeaderError or an *InvalidMessageError that names the field. An empty FromEmail,
// MessageID or Date is not an error, because WithDefaults fills them in. Nor is a message
// without recipients.
func (m *EmailMessage) Validate() error {
	_, err := m.compose(nil)
	return err
}
