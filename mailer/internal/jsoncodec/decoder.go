package jsoncodec

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Decoder reads one JSON value from its beginning to its end. After the first error it reads
// nothing more, and every method returns the zero value.
//
// Its methods take the name of the field that they read, for errors. Where they take null, it is
// the same as the zero value.
type Decoder struct {
	data   []byte
	in     bytes.Buffer // from which jsontext reads without copying
	tokens jsontext.Decoder
	err    *Error
}

// Error is why a Decoder gave up.
type Error struct {
	Field  string // the field at fault, or "message" if the JSON is broken
	Reason string // what is wrong with it
}

// NewDecoder returns a Decoder of data. Where an object has a key several times, each of its values is read.
func NewDecoder(data []byte) *Decoder {
	d := &Decoder{data: data, in: *bytes.NewBuffer(data)}
	d.tokens.Reset(&d.in, jsontext.AllowDuplicateNames(true))
	return d
}

// Err returns the first error, or nil.
func (d *Decoder) Err() *Error { return d.err }

// Fail makes this the error of the Decoder, unless it has one.
func (d *Decoder) Fail(field, reason string) {
	if d.err == nil {
		d.err = &Error{Field: field, Reason: reason}
	}
}

// End reads to the end of the data: nothing but white space may be left.
func (d *Decoder) End() {
	if d.err != nil {
		return
	}
	switch _, err := d.tokens.ReadToken(); {
	case err == nil:
		d.Fail("message", fmt.Sprintf("is not JSON: something follows it at octet %d", d.tokens.InputOffset()))
	case !errors.Is(err, io.EOF):
		d.broken("message", err)
	}
}

// Null skips null and reports whether it was there.
func (d *Decoder) Null() bool { return d.take("message", 'n') }

// Object reads an object and calls value with each key where its value stands.
func (d *Decoder) Object(field string, value func(key string)) {
	if !d.take(field, '{') {
		d.mismatch(field, "an object")
		return
	}
	for d.err == nil && !d.take(field, '}') {
		if key := d.string(field); d.err == nil {
			value(key)
		}
	}
}

// List reads a list, or null, and calls value where each of its values stands.
func (d *Decoder) List(field string, value func(i int)) {
	if d.Null() {
		return
	}
	if !d.take(field, '[') {
		d.mismatch(field, "a list")
		return
	}
	for i := 0; d.err == nil && !d.take(field, ']'); i++ {
		value(i)
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
		if k := d.kind(); k != '"' && k != 'n' {
			d.mismatch(field+"["+strconv.Itoa(i)+"]", "a string")
			return
		}
		all = append(all, d.Text(field))
	})
	return all
}

// Base64 reads a string of base64, or null.
func (d *Decoder) Base64(field string) []byte {
	if d.Null() {
		return nil
	}
	text := d.read(field)
	switch {
	case text == nil:
		return nil
	case bytes.IndexByte(text, '\\') >= 0:
		text = d.unquote(field, text)
	default:
		text = text[1 : len(text)-1]
	}
	content, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		d.Fail(field, "is not base64")
	}
	return content
}

// Bool reads true, false or null.
func (d *Decoder) Bool(field string) bool {
	if d.take(field, 't') {
		return true
	}
	if !d.take(field, 'f') && !d.Null() {
		d.mismatch(field, "true or false")
	}
	return false
}

func (d *Decoder) string(field string) string {
	quoted := d.read(field)
	if quoted == nil {
		return ""
	}
	text, ok := unquoted(quoted)
	if !ok {
		return string(d.unquote(field, quoted))
	}
	return text
}

// read reads a string. It is good, with its quotes and escapes, until the next one is read, and nil after an error.
func (d *Decoder) read(field string) []byte {
	if d.kind() != '"' {
		d.mismatch(field, "a string")
		return nil
	}
	quoted, err := d.tokens.ReadValue()
	if err != nil {
		d.broken(field, err)
		return nil
	}
	return quoted
}

func (d *Decoder) unquote(field string, quoted []byte) []byte {
	text, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		d.Fail(field, err.Error())
	}
	return text
}

// kind is that of what follows, 0 after an error.
func (d *Decoder) kind() jsontext.Kind {
	if d.err != nil {
		return 0
	}
	return d.tokens.PeekKind()
}

// take skips what follows if it is of this kind.
func (d *Decoder) take(field string, k jsontext.Kind) bool {
	if d.kind() != k {
		return false
	}
	if _, err := d.tokens.ReadToken(); err != nil {
		d.broken(field, err)
	}
	return d.err == nil
}

// mismatch is the error of a value of the wrong type.
func (d *Decoder) mismatch(field, want string) {
	kinds := map[jsontext.Kind]string{'"': "a string", '{': "an object", '[': "a list", 't': "true", 'f': "false", 'n': "null", '0': "a number"}
	k := d.kind()
	if d.err != nil {
		return
	}
	if _, err := d.tokens.ReadToken(); err != nil {
		d.broken(field, err)
	}
	d.Fail(field, "is "+kinds[k]+", not "+want)
}

// broken is the error of what is no JSON, or of a string that is no Unicode text.
func (d *Decoder) broken(field string, err error) {
	rest := bytes.TrimLeft(d.data[d.tokens.InputOffset():], " \t\r\n,:")
	var syntax *jsontext.SyntacticError
	switch text := badText(rest); {
	case text != nil && utf8.Valid(text):
		d.Fail(field, "has half of a surrogate pair")
	case text != nil:
		d.Fail(field, "is not valid UTF-8")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		d.Fail("message", "is not JSON: it ends too early")
	case errors.As(err, &syntax):
		d.Fail("message", fmt.Sprintf("is not JSON: %v at octet %d", syntax.Err, syntax.ByteOffset+1))
	default:
		d.Fail("message", "is not JSON: "+err.Error())
	}
}

// badText is the string that data begins with, if nothing but its Unicode is wrong.
func badText(data []byte) []byte {
	if _, err := jsontext.NewDecoder(bytes.NewReader(data)).ReadValue(); err == nil || !bytes.HasPrefix(data, []byte{'"'}) {
		return nil
	}
	text, err := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowInvalidUTF8(true)).ReadValue()
	if err != nil {
		return nil
	}
	return text
}
