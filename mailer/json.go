package mailer

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/jsoncodec"
)

// MarshalJSON writes every key, in a fixed order, except that "raw", "list_unsubscribe" and "verp" are there only if they are
// not empty. The date is RFC 3339, or empty, and the content of attachments is base64. The error is
// an *InvalidMessageError if a text is not valid UTF-8, because JSON would change it.
func (m EmailMessage) MarshalJSON() ([]byte, error) {
	return m.AppendJSON(make([]byte, 0, m.jsonSize()))
}

// AppendJSON appends to b what MarshalJSON returns. The error is MarshalJSON's.
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
	e.listUnsubscribe(m.ListUnsubscribe)
	if m.VERP != "" {
		e.text(`,"verp":`, "verp", m.VERP)
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

func (e *jsonEncoder) listUnsubscribe(l ListUnsubscribe) {
	if l == (ListUnsubscribe{}) {
		return
	}
	e.text(`,"list_unsubscribe":{"url":`, "list_unsubscribe.url", l.URL)
	e.text(`,"mailto":`, "list_unsubscribe.mailto", l.Mailto)
	e.buf = append(e.buf, `,"one_click":`...)
	e.buf = append(strconv.AppendBool(e.buf, l.OneClick), '}')
}

// jsonSize is about how many bytes the JSON will have.
func (m *EmailMessage) jsonSize() int {
	n := 512 + len(m.ListUnsubscribe.URL) + len(m.ListUnsubscribe.Mailto) + m.headerSize() + len(m.Body) + len(m.Body)/16 + base64.StdEncoding.EncodedLen(len(m.Raw))
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

// text writes a string. key is the JSON before it: comma, name and colon.
func (e *jsonEncoder) text(key, field, s string) {
	e.buf = append(e.buf, key...)
	e.string(field, s)
}

// partText is text for a field of an entry of a list.
func (e *jsonEncoder) partText(key, list string, i int, field, s string) {
	e.buf = append(e.buf, key...)
	if !e.quote(s) {
		e.fail(indexed(list, i, field), reasonUTF8)
	}
}

func (e *jsonEncoder) string(field, s string) {
	if !e.quote(s) {
		e.fail(field, reasonUTF8)
	}
}

// quote appends s as a JSON string and reports whether it is valid UTF-8.
func (e *jsonEncoder) quote(s string) (valid bool) {
	e.buf, valid = jsoncodec.AppendString(e.buf, s)
	return valid
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
		if !e.quote(s) {
			e.fail(field+"["+strconv.Itoa(i)+"]", reasonUTF8)
		}
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

// UnmarshalJSON reads what MarshalJSON wrote. A key may be missing, and null is the same as a
// missing key. Only the content of an attachment or an alternative has to be there: without it,
// it would go out empty. An unknown key is refused, and so is text that is not valid Unicode. The error is
// an *InvalidMessageError that names the field, or "message" if data is not JSON. It leaves m as
// it was.
func (m *EmailMessage) UnmarshalJSON(data []byte) error {
	d := jsonDecoder{jsoncodec.NewDecoder(data)}
	var e EmailMessage
	d.Object("message", func(key string) { e.decodeField(d, key) })
	d.End()
	if err := d.Err(); err != nil {
		return &InvalidMessageError{Field: err.Field, Reason: err.Reason}
	}
	*m = e
	return nil
}

func (m *EmailMessage) decodeField(d jsonDecoder, key string) {
	switch key {
	case "subject":
		m.Subject = d.Text(key)
	case "body":
		m.Body = d.Text(key)
	case "from_email":
		m.FromEmail = d.Text(key)
	case "to":
		m.To = d.Texts(key)
	case "cc":
		m.Cc = d.Texts(key)
	case "bcc":
		m.Bcc = d.Texts(key)
	case "reply_to":
		m.ReplyTo = d.Texts(key)
	case "headers":
		m.Headers = d.headers()
	case "content_subtype":
		m.ContentSubtype = d.Text(key)
	case "charset":
		m.Charset = d.Text(key)
	case "attachments":
		m.Attachments = d.attachments()
	case "alternatives":
		m.Alternatives = d.alternatives()
	case "raw":
		m.Raw = d.Base64(key)
	case "list_unsubscribe":
		m.ListUnsubscribe = d.listUnsubscribe()
	case "verp":
		m.VERP = d.Text(key)
	case "message_id":
		m.MessageID = d.Text(key)
	case "date":
		m.Date = d.date()
	case "fail_silently":
		m.FailSilently = d.Bool(key)
	default:
		d.Fail(printable(key), "is no field of a message")
	}
}

// jsonDecoder reads the parts of a message.
type jsonDecoder struct{ *jsoncodec.Decoder }

// printable returns a key as an error shows it: quoted if it has control characters.
func printable(key string) string {
	if charset.IsClean(key, charset.WithoutTab) {
		return key
	}
	return strconv.QuoteToASCII(key)
}

func (d jsonDecoder) headers() map[string]string {
	if d.Null() {
		return nil
	}
	all := map[string]string{}
	d.Object("headers", func(key string) { all[key] = d.Text(headerField(printable(key))) })
	return all
}

func (d jsonDecoder) listUnsubscribe() (l ListUnsubscribe) {
	if d.Null() {
		return l
	}
	d.Object("list_unsubscribe", func(key string) {
		field := "list_unsubscribe." + printable(key)
		switch key {
		case "url":
			l.URL = d.Text(field)
		case "mailto":
			l.Mailto = d.Text(field)
		case "one_click":
			l.OneClick = d.Bool(field)
		default:
			d.Fail(field, "is no field of list_unsubscribe")
		}
	})
	return l
}

func (d jsonDecoder) attachments() (all []Attachment) {
	d.List("attachments", func(i int) {
		var a Attachment
		found := false
		d.Object("attachments["+strconv.Itoa(i)+"]", func(key string) {
			field := indexed("attachments", i, printable(key))
			switch key {
			case "filename":
				a.Filename = d.Text(field)
			case "content":
				found = d.needed(field, "base64")
				a.Content = d.Base64(field)
			case "mimetype":
				a.Mimetype = d.Text(field)
			case "content_id":
				a.ContentID = d.Text(field)
			default:
				d.Fail(field, "is no field of an attachment")
			}
		})
		d.missing(found, "attachments", i)
		all = append(all, a)
	})
	return all
}

func (d jsonDecoder) alternatives() (all []Alternative) {
	d.List("alternatives", func(i int) {
		var a Alternative
		found := false
		d.Object("alternatives["+strconv.Itoa(i)+"]", func(key string) {
			field := indexed("alternatives", i, printable(key))
			switch key {
			case "content":
				found = d.needed(field, "a string")
				a.Content = d.Text(field)
			case "mimetype":
				a.Mimetype = d.Text(field)
			default:
				d.Fail(field, "is no field of an alternative")
			}
		})
		d.missing(found, "alternatives", i)
		all = append(all, a)
	})
	return all
}

// needed refuses null for the content of a part.
func (d jsonDecoder) needed(field, want string) bool {
	if d.Null() {
		d.Fail(field, "is null, not "+want)
	}
	return true
}

// missing refuses an entry of a list whose content was not found.
func (d jsonDecoder) missing(found bool, list string, i int) {
	if !found {
		d.Fail(indexed(list, i, "content"), "is missing")
	}
}

func (d jsonDecoder) date() time.Time {
	s := d.Text("date")
	if s == "" || d.Err() != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		d.Fail("date", "is not a time as RFC 3339 writes it")
	}
	return t
}
