package mailer

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// UnmarshalJSON reads what MarshalJSON wrote. A key may be missing, null is the
// same as a missing key, and an unknown key is refused, as is text that is not
// valid Unicode. Every error is an InvalidMessageError that names the field, or
// "message" if it is not JSON at all.
func (m *EmailMessage) UnmarshalJSON(data []byte) error {
	d := jsonDecoder{data: data}
	var e EmailMessage
	d.object("message", func(key string) { e.decodeField(&d, key) })
	d.end()
	if d.err != nil {
		return d.err
	}
	*m = e
	return nil
}

func (m *EmailMessage) decodeField(d *jsonDecoder, key string) {
	switch key {
	case "subject":
		m.Subject = d.text(key)
	case "body":
		m.Body = d.text(key)
	case "from_email":
		m.FromEmail = d.text(key)
	case "to":
		m.To = d.texts(key)
	case "cc":
		m.Cc = d.texts(key)
	case "bcc":
		m.Bcc = d.texts(key)
	case "reply_to":
		m.ReplyTo = d.texts(key)
	case "headers":
		m.Headers = d.headers()
	case "content_subtype":
		m.ContentSubtype = d.text(key)
	case "charset":
		m.Charset = d.text(key)
	case "attachments":
		m.Attachments = d.attachments()
	case "alternatives":
		m.Alternatives = d.alternatives()
	case "raw":
		m.Raw = d.base64(key)
	case "message_id":
		m.MessageID = d.text(key)
	case "date":
		m.Date = d.date()
	case "fail_silently":
		m.FailSilently = d.bool(key)
	default:
		d.fail(printable(key), "is no field of a message")
	}
}

// jsonDecoder reads JSON from data. After the first error it reads nothing more.
// It knows the few shapes that a message has, which makes it several times as fast
// as encoding/json: decoding is what a worker would spend most of its time on.
type jsonDecoder struct {
	data []byte
	pos  int
	err  error
}

func (d *jsonDecoder) fail(field, reason string) {
	if d.err == nil {
		d.err = &InvalidMessageError{Field: field, Reason: reason}
	}
}

// printable is a key as an error may show it: in quotes if it would spoil the line.
func printable(key string) string {
	if charset.IsClean(key, charset.WithoutTab) {
		return key
	}
	return strconv.QuoteToASCII(key)
}

// syntax says that the JSON is broken where the decoder stands.
func (d *jsonDecoder) syntax() {
	if d.pos >= len(d.data) {
		d.fail("message", "is not JSON: it ends too early")
		return
	}
	d.fail("message", fmt.Sprintf("is not JSON: %q at octet %d", d.data[d.pos], d.pos+1))
}

// next skips white space and returns what follows, 0 at the end or after an error.
func (d *jsonDecoder) next() byte {
	for d.err == nil && d.pos < len(d.data) {
		switch c := d.data[d.pos]; c {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

// take skips c if it follows.
func (d *jsonDecoder) take(c byte) bool {
	if d.next() != c {
		return false
	}
	d.pos++
	return true
}

func (d *jsonDecoder) end() {
	if d.next() != 0 || d.err == nil && d.pos < len(d.data) {
		d.syntax()
	}
}

// literal skips a word such as null.
func (d *jsonDecoder) literal(word string) bool {
	if d.next() == 0 || !bytes.HasPrefix(d.data[d.pos:], []byte(word)) {
		return false
	}
	d.pos += len(word)
	return true
}

// mismatch is the error of a value of the wrong type.
func (d *jsonDecoder) mismatch(field, want string) {
	kinds := map[byte]string{'"': "a string", '{': "an object", '[': "a list", 't': "true", 'f': "false", 'n': "null"}
	c := d.next()
	kind, known := kinds[c]
	switch {
	case known:
	case c == '-' || '0' <= c && c <= '9':
		kind = "a number"
	default:
		d.syntax()
		return
	}
	d.fail(field, "is "+kind+", not "+want)
}

// object reads an object and calls value with each key where its value stands.
func (d *jsonDecoder) object(field string, value func(key string)) {
	if !d.take('{') {
		d.mismatch(field, "an object")
		return
	}
	if d.take('}') {
		return
	}
	for d.err == nil {
		if d.next() != '"' {
			d.syntax()
			return
		}
		key := d.string(field)
		if !d.take(':') {
			d.syntax()
			return
		}
		value(key)
		if d.take('}') {
			return
		}
		if !d.take(',') {
			d.syntax()
		}
	}
}

// list reads a list, or null, and calls value where each of its values stands.
func (d *jsonDecoder) list(field string, value func(i int)) {
	if d.literal("null") {
		return
	}
	if !d.take('[') {
		d.mismatch(field, "a list")
		return
	}
	if d.take(']') {
		return
	}
	for i := 0; d.err == nil; i++ {
		value(i)
		if d.take(']') {
			return
		}
		if !d.take(',') {
			d.syntax()
		}
	}
}

func (d *jsonDecoder) text(field string) string {
	if d.literal("null") {
		return ""
	}
	return d.string(field)
}

func (d *jsonDecoder) texts(field string) (all []string) {
	d.list(field, func(i int) {
		switch {
		case d.literal("null"):
			all = append(all, "")
		case d.next() == '"':
			all = append(all, d.string(field))
		default:
			d.mismatch(field+"["+strconv.Itoa(i)+"]", "a string")
		}
	})
	return all
}

func (d *jsonDecoder) headers() map[string]string {
	if d.literal("null") {
		return nil
	}
	all := map[string]string{}
	d.object("headers", func(key string) { all[key] = d.text(headerField(printable(key))) })
	return all
}

func (d *jsonDecoder) attachments() (all []Attachment) {
	d.list("attachments", func(i int) {
		var a Attachment
		d.object("attachments["+strconv.Itoa(i)+"]", func(key string) {
			field := indexed("attachments", i, printable(key))
			switch key {
			case "filename":
				a.Filename = d.text(field)
			case "content":
				a.Content = d.base64(field)
			case "mimetype":
				a.Mimetype = d.text(field)
			case "content_id":
				a.ContentID = d.text(field)
			default:
				d.fail(field, "is no field of an attachment")
			}
		})
		all = append(all, a)
	})
	return all
}

func (d *jsonDecoder) alternatives() (all []Alternative) {
	d.list("alternatives", func(i int) {
		var a Alternative
		d.object("alternatives["+strconv.Itoa(i)+"]", func(key string) {
			field := indexed("alternatives", i, printable(key))
			switch key {
			case "content":
				a.Content = d.text(field)
			case "mimetype":
				a.Mimetype = d.text(field)
			default:
				d.fail(field, "is no field of an alternative")
			}
		})
		all = append(all, a)
	})
	return all
}

func (d *jsonDecoder) base64(field string) []byte {
	if d.literal("null") {
		return nil
	}
	part, made := d.read(field)
	if made != "" {
		part = []byte(made)
	}
	content, err := base64.StdEncoding.AppendDecode(nil, part)
	if err != nil {
		d.fail(field, "is not base64")
	}
	return content
}

func (d *jsonDecoder) date() time.Time {
	s := d.text("date")
	if s == "" || d.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		d.fail("date", "is not a time as RFC 3339 writes it")
	}
	return t
}

func (d *jsonDecoder) bool(field string) bool {
	if d.literal("true") {
		return true
	}
	if !d.literal("false") && !d.literal("null") {
		d.mismatch(field, "true or false")
	}
	return false
}

func (d *jsonDecoder) string(field string) string {
	part, made := d.read(field)
	if made != "" {
		return made
	}
	return string(part)
}

// read reads a string: a part of data, which the caller copies, or one that had to be made, for it
// has escapes.
func (d *jsonDecoder) read(field string) (part []byte, made string) {
	if !d.take('"') {
		d.mismatch(field, "a string")
		return nil, ""
	}
	rest := d.data[d.pos:]
	if n := plainLen(rest); n < len(rest) && rest[n] == '"' {
		d.pos += n + 1
		part = rest[:n]
	} else {
		made = d.escaped(field)
	}
	if !utf8.Valid(part) || !utf8.ValidString(made) {
		d.fail(field, reasonUTF8)
		return nil, ""
	}
	return part, made
}

// plainLen is how much of s stands for itself.
func plainLen(s []byte) int {
	for i, c := range s {
		if c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return len(s)
}

// escaped reads the rest of a string that has escapes in it (RFC 8259, 7).
func (d *jsonDecoder) escaped(field string) string {
	var s strings.Builder
	s.Grow(max(bytes.IndexByte(d.data[d.pos:], '"'), 0))
	for d.err == nil {
		n := plainLen(d.data[d.pos:])
		s.Write(d.data[d.pos : d.pos+n])
		d.pos += n
		switch {
		case d.pos >= len(d.data) || d.data[d.pos] < ' ':
			d.syntax()
		case d.data[d.pos] == '"':
			d.pos++
			return s.String()
		default:
			d.escape(field, &s)
		}
	}
	return ""
}

// escape reads the escape that begins where the decoder stands.
func (d *jsonDecoder) escape(field string, s *strings.Builder) {
	if d.pos+1 >= len(d.data) {
		d.pos++
		d.syntax()
		return
	}
	if plain := strings.IndexByte(`"\/bfnrt`, d.data[d.pos+1]); plain >= 0 {
		d.pos += len(`\n`)
		s.WriteByte("\"\\/\b\f\n\r\t"[plain])
		return
	}
	r, ok := d.codeUnit(d.pos)
	if !ok {
		d.syntax()
		return
	}
	d.pos += len(`\u0000`)
	if utf16.IsSurrogate(r) {
		low, _ := d.codeUnit(d.pos)
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			d.fail(field, "has half of a surrogate pair")
			return
		}
		d.pos += len(`\u0000`)
	}
	s.WriteRune(r)
}

// codeUnit reads \u0000 at pos.
func (d *jsonDecoder) codeUnit(pos int) (rune, bool) {
	if len(d.data) < pos+len(`\u0000`) || d.data[pos] != '\\' || d.data[pos+1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(d.data[pos+2:pos+6]), 16, 16)
	return rune(v), err == nil
}
