package mailer

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
	"github.com/mailpouch/mailpouch/mailer/internal/rawmessage"
)

// rawDraft is a raw message that was checked, and how it is written.
type rawDraft struct {
	header []byte // all of it, or what is put in front of fields
	body   []byte

	anew   bool              // header and body are encoded anew
	fields rawmessage.Fields // of the header, if anew
}

// composeRaw checks a raw message and writes its header behind what is in buf.
func (m *EmailMessage) composeRaw(buf []byte, a addresses, headers []namedHeader, cs charset.Charset) (*rawDraft, error) {
	if err := m.checkAlone(headers); err != nil {
		return nil, err
	}
	fields, body, err := readRaw(m.Raw)
	if err != nil {
		return nil, err
	}
	h := mimewriter.Header{Buf: slices.Grow(buf, mimewriter.EstimateRawHeader(m.Raw[:len(m.Raw)-len(body)]))}
	if err := m.writeTrace(&h, cs); err != nil {
		return nil, err
	}
	m.addMissing(&h, fields, a, cs)
	fields = slices.DeleteFunc(fields, func(f rawmessage.Field) bool {
		return address.IsBlindCopy(f.Name) || strings.EqualFold(f.Name, "Return-Path")
	})
	d := &rawDraft{body: body, anew: mimewriter.HasLongLine(body)}
	if d.anew && fields.Get("MIME-Version") == "" {
		h.Buf = append(h.Buf, "MIME-Version: 1.0\r\n"...)
	}
	d.header = h.Buf
	// A message that has to be encoded anew is written twice, the first time to nobody: nothing
	// may be written before all of it is known to be good, and it need not be kept for that.
	r := rawmessage.Rewriter{Writer: mimewriter.NewWriter(io.Discard, mimewriter.Buffers{}, nil), KeepSigned: true}
	var ok bool
	if d.anew {
		d.fields = fields
		ok = r.Rewrite(fields, body)
	} else {
		r.Header = h
		ok = r.WriteHeader(fields)
		d.header = r.Buf
	}
	if !ok || h.Long != "" || r.Long != "" {
		reason := cmp.Or(r.Reason, "has a line of more than 998 octets that cannot be written in another way")
		return nil, &InvalidMessageError{Field: "raw", Reason: reason}
	}
	return d, nil
}

// writeTo writes the message to w, in buffers.
func (d *rawDraft) writeTo(w io.Writer, buffers mimewriter.Buffers) (int64, error) {
	r := rawmessage.Rewriter{Writer: mimewriter.NewWriter(w, buffers, d.header), KeepSigned: true}
	if d.anew {
		r.Rewrite(d.fields, d.body)
	} else {
		r.Content(d.body, true, mimewriter.SevenBit)
	}
	return r.Flush()
}

// checkAlone refuses fields beside Raw that Raw itself contains.
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
		{"list_unsubscribe", m.ListUnsubscribe != ListUnsubscribe{}},
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

// addMissing writes From and Date, which every message must have (RFC 5322, 3.6), and Message-ID,
// each if the message lacks it.
func (m *EmailMessage) addMissing(h *mimewriter.Header, fields rawmessage.Fields, a addresses, cs charset.Charset) {
	missing := func(name string) bool {
		return !slices.ContainsFunc(fields, func(f rawmessage.Field) bool { return strings.EqualFold(f.Name, name) })
	}
	if missing("From") && len(a.from) > 0 {
		h.Addresses("From", "from_email", a.from, cs)
	}
	if missing("Date") && !m.Date.IsZero() {
		h.Date(m.Date)
	}
	if missing("Message-ID") && m.MessageID != "" {
		h.Text("Message-ID", "message_id", m.MessageID, cs)
	}
}
