package httpapi

import (
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decode reads JSON strictly: what is unknown, there twice or of the wrong kind is an error that names the field. Null is the same as a field that is
// not there. in is what the names of fields are in: "", or [2] in a batch.
func decode(data []byte, into any, in string) *apiError {
	err := json.Unmarshal(data, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var syntax *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		return invalid(field(in, syntax.JSONPointer), "is there twice")
	case errors.As(err, &syntax):
		return &apiError{
			StatusCode: http.StatusBadRequest, Name: nameValidation, Field: short(field(in, syntax.JSONPointer)),
			Message: "the body is not JSON: at byte " + strconv.FormatInt(syntax.ByteOffset, 10) + ": " + strings.TrimPrefix(syntax.Err.Error(), "jsontext: "),
		}
	case errors.As(err, &semantic):
		return invalid(field(in, semantic.JSONPointer), reason(semantic))
	}
	return &apiError{StatusCode: http.StatusBadRequest, Name: nameValidation, Message: "the body is not JSON"}
}

// field is how a field is named that a pointer points to: /attachments/0/path is attachments[0].path, and /headers/X-A is headers[X-A].
func field(in string, pointer jsontext.Pointer) string {
	var b strings.Builder
	b.WriteString(in)
	first := ""
	for token := range pointer.Tokens() {
		_, err := strconv.Atoi(token)
		switch {
		case err == nil, first == "headers":
			b.WriteString("[" + strings.ToValidUTF8(token, "") + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
		if first == "" {
			first = token
		}
	}
	if b.Len() == 0 {
		return "body"
	}
	return b.String()
}

// kindNames are how people call the kinds of JSON.
var kindNames = map[jsontext.Kind]string{'"': "a string", '{': "an object", '[': "a list", 't': "true", 'f': "false", 'n': "null", '0': "a number"}

// reason says what is wrong with a value.
func reason(e *json.SemanticError) string {
	if errors.Is(e.Err, json.ErrUnknownName) {
		return "is no field that is known here"
	}
	if own := new(valueError); errors.As(e.Err, &own) {
		return own.reason
	}
	want := "what it should be"
	if e.GoType != nil {
		switch e.GoType.Kind() { //nolint:exhaustive // what the requests are made of
		case reflect.String:
			want = "a string"
		case reflect.Slice:
			want = "a list"
		case reflect.Struct, reflect.Map:
			want = "an object"
		}
	}
	if kind, ok := kindNames[e.JSONKind]; ok {
		return "is " + kind + ", not " + want
	}
	return "is not " + want
}

// valueError is the error of a value that is read in a way of its own.
type valueError struct{ reason string }

func (e *valueError) Error() string { return e.reason }

// texts are strings: one, or a list of them.
type texts []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case 'n':
		*t = nil
		return d.SkipValue()
	case '"':
		var one string
		err := json.UnmarshalDecode(d, &one)
		*t = texts{one}
		return err
	case '[':
		var list []string
		err := json.UnmarshalDecode(d, &list)
		*t = list
		return err
	}
	if err := d.SkipValue(); err != nil {
		return err
	}
	return &valueError{"is neither a string nor a list of strings"}
}

// content is the content of a file: base64, a list of bytes, which SDKs for Go, Python and PHP send, or a Buffer of Node.js.
type content struct {
	bytes []byte
	given bool
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *content) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*c = content{given: true}
	switch d.PeekKind() {
	case 'n':
		c.given = false
		return d.SkipValue()
	case '"':
		var text string
		if err := json.UnmarshalDecode(d, &text); err != nil {
			return err
		}
		var err error
		if c.bytes, err = base64.StdEncoding.DecodeString(text); err != nil {
			c.bytes, err = base64.RawStdEncoding.DecodeString(text)
		}
		switch {
		case err != nil && strings.HasPrefix(text, "data:"):
			return &valueError{"is a data: URL: send what stands in it behind the comma"}
		case err != nil:
			return &valueError{"is not base64"}
		}
		return nil
	case '[':
		return c.readList(d)
	case '{':
		return c.readBuffer(d)
	}
	if err := d.SkipValue(); err != nil {
		return err
	}
	return &valueError{"is not base64"}
}

// readList reads a list of bytes.
func (c *content) readList(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		b, err := strconv.ParseUint(string(value), 10, 8)
		if err != nil {
			return &valueError{"is a list of something else than bytes"}
		}
		c.bytes = append(c.bytes, byte(b))
	}
	_, err := d.ReadToken()
	return err
}

// readBuffer reads what Node.js writes of a Buffer: {"type": "Buffer", "data": [104, 105]}.
func (c *content) readBuffer(d *jsontext.Decoder) error {
	var buffer struct {
		Type string  `json:"type"`
		Data content `json:"data"`
	}
	if err := json.UnmarshalDecode(d, &buffer); err != nil {
		return err
	}
	if buffer.Type != "Buffer" || !buffer.Data.given {
		return &valueError{"is neither base64, nor a list of bytes, nor a Buffer"}
	}
	c.bytes = buffer.Data.bytes
	return nil
}

// filename is a name, or false for none.
type filename string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *filename) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == 'f' {
		*f = ""
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, (*string)(f))
}
