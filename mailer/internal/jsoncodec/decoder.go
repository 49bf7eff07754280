package jsoncodec

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const reasonUTF8 = "is not valid UTF-8"

// Decoder reads one JSON value from its beginning to its end. After the first error it reads
// nothing more, and every method returns the zero value.
//
// Its methods take the name of the field that they read, for errors. Where they take null, it is
// the same as the zero value.
type Decoder struct {
	data []byte
	pos  int
	err  *Error
}

// Error is why a Decoder gave up.
type Error struct {
	Field  string // the field at fault, or "message" if the JSON is broken
	Reason string // what is wrong with it
}

// NewDecoder returns a Decoder of data.
func NewDecoder(data []byte) *Decoder { return &Decoder{data: data} }

// Err returns the first error, or nil.
func (d *Decoder) Err() *Error { return d.err }

// Fail makes this the error of the Decoder, unless it has one.
func (d *Decoder) Fail(field, reason string) {
	if d.err == nil {
		d.err = &Error{Field: field, Reason: reason}
	}
}

// syntax reports that the JSON is broken where the decoder stands.
func (d *Decoder) syntax() {
	if d.pos >= len(d.data) {
		d.Fail("message", "is not JSON: it ends too early")
		return
	}
	d.Fail("message", fmt.Sprintf("is not JSON: %q at octet %d", d.data[d.pos], d.pos+1))
}

// next skips white space and returns what follows, 0 at the end or after an error.
func (d *Decoder) next() byte {
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
func (d *Decoder) take(c byte) bool {
	if d.next() != c {
		return false
	}
	d.pos++
	return true
}

// End reads to the end of the data: nothing but white space may be left.
func (d *Decoder) End() {
	if d.next() != 0 || d.err == nil && d.pos < len(d.data) {
		d.syntax()
	}
}

// Null skips null and reports whether it was there.
func (d *Decoder) Null() bool { return d.literal("null") }

// literal skips a word such as null.
func (d *Decoder) literal(word string) bool {
	if d.next() == 0 || !bytes.HasPrefix(d.data[d.pos:], []byte(word)) {
		return false
	}
	d.pos += len(word)
	return true
}

// mismatch is the error of a value of the wrong type.
func (d *Decoder) mismatch(field, want string) {
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
	d.Fail(field, "is "+kind+", not "+want)
}

// Object reads an object and calls value with each key where its value stands.
func (d *Decoder) Object(field string, value func(key string)) {
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

// List reads a list, or null, and calls value where each of its values stands.
func (d *Decoder) List(field string, value func(i int)) {
	if d.Null() {
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

// Text reads a string, or null.
func (d *Decoder) Text(field string) string {
	if d.Null() {
		return ""
	}
	return d.string(field)
}

// Texts reads a list of strings, or null. An entry may be null too.
func (d *Decoder) Texts(field string) (all []string) {
	d.List(field, func(i int) {
		switch {
		case d.Null():
			all = append(all, "")
		case d.next() == '"':
			all = append(all, d.string(field))
		default:
			d.mismatch(field+"["+strconv.Itoa(i)+"]", "a string")
		}
	})
	return all
}

// Base64 reads a string of base64, or null.
func (d *Decoder) Base64(field string) []byte {
	if d.Null() {
		return nil
	}
	part, made := d.read(field)
	if made != "" {
		part = []byte(made)
	}
	content, err := base64.StdEncoding.AppendDecode(nil, part)
	if err != nil {
		d.Fail(field, "is not base64")
	}
	return content
}

// Bool reads true, false or null.
func (d *Decoder) Bool(field string) bool {
	if d.literal("true") {
		return true
	}
	if !d.literal("false") && !d.Null() {
		d.mismatch(field, "true or false")
	}
	return false
}

func (d *Decoder) string(field string) string {
	part, made := d.read(field)
	if made != "" {
		return made
	}
	return string(part)
}

// read reads a string: a part of data, which the caller copies, or one that had to be made, for it
// has escapes.
func (d *Decoder) read(field string) (part []byte, made string) {
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
		d.Fail(field, reasonUTF8)
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
func (d *Decoder) escaped(field string) string {
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
func (d *Decoder) escape(field string, s *strings.Builder) {
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
			d.Fail(field, "has half of a surrogate pair")
			return
		}
		d.pos += len(`\u0000`)
	}
	s.WriteRune(r)
}

// codeUnit reads \u0000 at pos.
func (d *Decoder) codeUnit(pos int) (rune, bool) {
	if len(d.data) < pos+len(`\u0000`) || d.data[pos] != '\\' || d.data[pos+1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(d.data[pos+2:pos+6]), 16, 16)
	return rune(v), err == nil
}
