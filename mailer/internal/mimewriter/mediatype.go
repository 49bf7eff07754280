package mimewriter

import (
	"bytes"
	"errors"
	"maps"
	"mime"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// MediaType is the value of a Content-Type (RFC 2045, 5).
type MediaType struct {
	Value  string // type and subtype in lower case: "text/plain"
	params []param
}

// param is a parameter. Those of a type are in the order of their names.
type param struct{ name, value string }

// NewMediaType returns the type with these parameters.
func NewMediaType(value string, params map[string]string) MediaType {
	t := MediaType{Value: value, params: make([]param, 0, len(params)+1)}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		t.params = append(t.params, param{name, params[name]})
	}
	return t
}

// maxMediaType bounds what an author may write, so that no header line made of
// it, encoded, is too long.
const maxMediaType = 300

// What is wrong with a text that is not a media type.
var (
	ErrMediaType = errors.New("is not a media type such as text/html")
	ErrParameter = errors.New("has a bad parameter") // a control character in it, percent-encoded
)

// ParseMediaType reads a type that an author wrote: clean text (charset.IsClean). An error is
// ErrMediaType or ErrParameter.
func ParseMediaType(s string) (MediaType, error) {
	if kind, subtype, ok := strings.Cut(s, "/"); ok && isToken(kind) && isToken(subtype) && len(s) <= maxMediaType {
		return MediaType{Value: strings.ToLower(s)}, nil
	}
	value, params, err := mime.ParseMediaType(s)
	kind, subtype, _ := strings.Cut(value, "/")
	if err != nil || !isToken(kind) || !isToken(subtype) || len(s) > maxMediaType {
		return MediaType{}, ErrMediaType
	}
	for name, value := range params { // percent-encoded text may hold what the outer one may not
		if !isToken(name) || !charset.IsClean(value, charset.WithoutTab) {
			return MediaType{}, ErrParameter
		}
	}
	return NewMediaType(value, params), nil
}

// IsText reports whether the type is text/...
func (t MediaType) IsText() bool { return strings.HasPrefix(t.Value, "text/") }

// IsMessage reports whether the type is message/...
func (t MediaType) IsMessage() bool { return strings.HasPrefix(t.Value, "message/") }

// IsMultipart reports whether the type is multipart/...
func (t MediaType) IsMultipart() bool { return strings.HasPrefix(t.Value, "multipart/") }

// Param returns the value of a parameter, or "".
func (t MediaType) Param(name string) string {
	for _, p := range t.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// With returns the type with a parameter set.
func (t MediaType) With(name, value string) MediaType {
	i, found := slices.BinarySearchFunc(t.params, name, func(p param, name string) int { return strings.Compare(p.name, name) })
	params := slices.Clone(t.params)
	if found {
		params[i].value = value
	} else {
		params = slices.Insert(params, i, param{name, value})
	}
	return MediaType{Value: t.Value, params: params}
}

// GuessType finds the type of an attachment whose author gave none: by the
// extension of its name, then by its content.
func GuessType(filename string, content []byte) MediaType {
	if ext := strings.ToLower(filepath.Ext(filename)); ext != "" {
		if t := mediaTypes[ext]; t != "" {
			return MediaType{Value: t}
		}
		if t, _, err := mime.ParseMediaType(mime.TypeByExtension(ext)); err == nil {
			return MediaType{Value: t}
		}
	}
	return MediaType{Value: typeByContent(content)}
}

// typeByContent knows a few signatures, and text when it sees it. net/http has a
// longer list, but a program that sends mail should not have to link a web server.
func typeByContent(content []byte) string {
	for _, s := range []struct{ magic, mime string }{
		{"%PDF-", "application/pdf"},
		{"\x89PNG\r\n\x1a\n", "image/png"},
		{"\xff\xd8\xff", "image/jpeg"},
		{"GIF87a", "image/gif"},
		{"GIF89a", "image/gif"},
		{"PK\x03\x04", "application/zip"},
		{"\x1f\x8b", "application/gzip"},
		{"<!DOCTYPE html", "text/html"},
		{"<html", "text/html"},
	} {
		if len(content) >= len(s.magic) && strings.EqualFold(string(content[:len(s.magic)]), s.magic) {
			return s.mime
		}
	}
	if len(content) >= 12 && string(content[:4]) == "RIFF" && string(content[8:12]) == "WEBP" {
		return "image/webp"
	}
	if len(content) > 0 && utf8.Valid(content) && !bytes.ContainsFunc(content, isBinary) {
		return "text/plain"
	}
	return OctetStream
}

// isBinary is true for control characters that no text file has.
func isBinary(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f' || r == 0x7f
}

// isToken reports whether s is a token (RFC 2045, 5.1), which needs no quotes.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
