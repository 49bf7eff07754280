package mailer

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// MarshalJSON writes every key, in a fixed order, but "raw" only if there is one. The date is RFC 3339, or empty,
// and the content of attachments is base64. It is an InvalidMessageError if a text
// is not valid UTF-8, which JSON could not carry unharmed.
func (m EmailMessage) MarshalJSON() ([]byte, error) {
	return m.AppendJSON(make([]byte, 0, m.jsonSize()))
}

// AppendJSON appends what MarshalJSON returns to b.
func (m *EmailMessage) AppendJSON(b []byte) ([]byte, error) {
	e := jsonEncoder{buf: b}
	e.text(`{"subject":`, "subject", m.Subject)
	e.text(`,"body":`, "body", m.Body)
	e.text(`,"from_email":`, "from_email", m.FromEmail)
	e.texts(`,"to":`, "to", m.To)
	e.texts(`,"cc":`, "cc", m.Cc)
	e.texts(`,"bcc":`, "bcc", m.Bcc)
	e.texts(`,"reply_to":`, "reply_to", m.ReplyTo)
	e.headers(m.Headers)
	e.text(`,"content_subtype":`, "content_subtype", cmp.Or(m.ContentSubtype, "plain"))
	e.text(`,"charset":`, "charset", m.Charset)
	e.attachments(m.Attachments)
	e.alternatives(m.Alternatives)
	if len(m.Raw) > 0 {
		e.buf = append(e.buf, `,"raw":"`...)
		e.buf = base64.StdEncoding.AppendEncode(e.buf, m.Raw)
		e.buf = append(e.buf, '"')
	}
	e.text(`,"message_id":`, "message_id", m.MessageID)
	e.date(m.Date)
	e.buf = append(e.buf, `,"fail_silently":`...)
	if m.FailSilently {
		e.buf = append(e.buf, "true}"...)
	} else {
		e.buf = append(e.buf, "false}"...)
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.buf, nil
}

// jsonSize is about how long the JSON will be.
func (m *EmailMessage) jsonSize() int {
	n := 512 + m.headerSize() + len(m.Body) + len(m.Body)/16 + base64.StdEncoding.EncodedLen(len(m.Raw))
	for _, addr := range m.Bcc {
		n += len(addr) + len(`"",`)
	}
	for _, a := range m.Attachments {
		n += 128 + base64.StdEncoding.EncodedLen(len(a.Content))
	}
	for _, a := range m.Alternatives {
		n += 64 + len(a.Content) + len(a.Content)/16
	}
	return n
}

// jsonEncoder appends values and keeps the first error.
type jsonEncoder struct {
	buf []byte
	err error
}

// text writes a key, with what stands before it, and a string.
func (e *jsonEncoder) text(key, field, s string) {
	e.buf = append(e.buf, key...)
	e.string(field, s)
}

// partText is text for the field of a list's entry.
func (e *jsonEncoder) partText(key, list string, i int, field, s string) {
	if !utf8.ValidString(s) {
		e.fail(indexed(list, i, field), reasonUTF8)
	}
	e.buf = append(e.buf, key...)
	e.buf = appendJSONString(e.buf, s)
}

func (e *jsonEncoder) string(field, s string) {
	if !utf8.ValidString(s) {
		e.fail(field, reasonUTF8)
		return
	}
	e.buf = appendJSONString(e.buf, s)
}

func (e *jsonEncoder) fail(field, reason string) {
	if e.err == nil {
		e.err = &InvalidMessageError{Field: field, Reason: reason}
	}
}

func (e *jsonEncoder) texts(key, field string, list []string) {
	e.buf = append(e.buf, key...)
	e.buf = append(e.buf, '[')
	for i, s := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		if !utf8.ValidString(s) {
			e.fail(field+"["+strconv.Itoa(i)+"]", reasonUTF8)
		}
		e.buf = appendJSONString(e.buf, s)
	}
	e.buf = append(e.buf, ']')
}

func (e *jsonEncoder) headers(h map[string]string) {
	e.buf = append(e.buf, `,"headers":{`...)
	for i, name := range slices.Sorted(maps.Keys(h)) {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.string("headers", name)
		e.text(":", headerField(printable(name)), h[name])
	}
	e.buf = append(e.buf, '}')
}

func (e *jsonEncoder) attachments(list []Attachment) {
	e.buf = append(e.buf, `,"attachments":[`...)
	for i, a := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.partText(`{"filename":`, "attachments", i, "filename", a.Filename)
		e.buf = append(e.buf, `,"content":"`...)
		e.buf = base64.StdEncoding.AppendEncode(e.buf, a.Content)
		e.partText(`","mimetype":`, "attachments", i, "mimetype", a.Mimetype)
		e.partText(`,"content_id":`, "attachments", i, "content_id", a.ContentID)
		e.buf = append(e.buf, '}')
	}
	e.buf = append(e.buf, ']')
}

func (e *jsonEncoder) alternatives(list []Alternative) {
	e.buf = append(e.buf, `,"alternatives":[`...)
	for i, a := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.partText(`{"content":`, "alternatives", i, "content", a.Content)
		e.partText(`,"mimetype":`, "alternatives", i, "mimetype", a.Mimetype)
		e.buf = append(e.buf, '}')
	}
	e.buf = append(e.buf, ']')
}

func (e *jsonEncoder) date(t time.Time) {
	e.buf = append(e.buf, `,"date":"`...)
	if reason := dateReason(t); reason != "" {
		e.fail("date", reason)
	} else if !t.IsZero() {
		e.buf = t.AppendFormat(e.buf, time.RFC3339)
	}
	e.buf = append(e.buf, '"')
}

// appendJSONString appends s, which is valid UTF-8, in quotes.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
