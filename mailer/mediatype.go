package mailer

import (
	"bytes"
	"maps"
	"mime"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// mediaType is a Content-Type, read.
type mediaType struct {
	value  string // "text/plain", in lower case
	params []param
}

// param is a parameter. Those of a type are in the order of their names.
type param struct{ name, value string }

func sortedParams(m map[string]string) []param {
	params := make([]param, 0, len(m)+1)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		params = append(params, param{name, m[name]})
	}
	return params
}

const octetStream = "application/octet-stream"

// maxMediaType bounds what an author may write, so that no header line made of
// it, encoded, is too long.
const maxMediaType = 300

// parseMediaType reads what an author wrote as the type of field.
func parseMediaType(field, s string) (mediaType, error) {
	if !isClean(s, withoutTab) {
		return mediaType{}, checkText(field, s, withoutTab)
	}
	if kind, subtype, ok := strings.Cut(s, "/"); ok && isToken(kind) && isToken(subtype) && len(s) <= maxMediaType {
		return mediaType{value: strings.ToLower(s)}, nil
	}
	value, params, err := mime.ParseMediaType(s)
	kind, subtype, _ := strings.Cut(value, "/")
	if err != nil || !isToken(kind) || !isToken(subtype) || len(s) > maxMediaType {
		return mediaType{}, &InvalidMessageError{Field: field, Reason: "is not a media type such as text/html"}
	}
	for name, value := range params { // percent-encoded text may hold what the outer one may not
		if !isToken(name) || !isClean(value, withoutTab) {
			return mediaType{}, &BadHeaderError{Field: field, Reason: "has a bad parameter"}
		}
	}
	return mediaType{value: value, params: sortedParams(params)}, nil
}

func (t mediaType) isText() bool      { return strings.HasPrefix(t.value, "text/") }
func (t mediaType) isMessage() bool   { return strings.HasPrefix(t.value, "message/") }
func (t mediaType) isMultipart() bool { return strings.HasPrefix(t.value, "multipart/") }

// param returns the value of a parameter, or "".
func (t mediaType) param(name string) string {
	for _, p := range t.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// with returns the type with a parameter set.
func (t mediaType) with(name, value string) mediaType {
	i, found := slices.BinarySearchFunc(t.params, name, func(p param, name string) int { return strings.Compare(p.name, name) })
	params := slices.Clone(t.params)
	if found {
		params[i].value = value
	} else {
		params = slices.Insert(params, i, param{name, value})
	}
	return mediaType{value: t.value, params: params}
}

// contentType writes the Content-Type field.
func (h *headerWriter) contentType(t mediaType) { h.contentParams("Content-Type", t) }

// contentParams writes a field with parameters, in the order of their names.
func (h *headerWriter) contentParams(field string, t mediaType) {
	h.begin(field, field)
	h.put(" ", t.value)
	for _, p := range t.params {
		h.param(p.name, p.value)
	}
	h.end()
}

// guessType finds the type of an attachment whose author gave none: by the
// extension of its name, then by its content.
func guessType(filename string, content []byte) mediaType {
	if ext := strings.ToLower(filepath.Ext(filename)); ext != "" {
		if t := mediaTypes[ext]; t != "" {
			return mediaType{value: t}
		}
		if t, _, err := mime.ParseMediaType(mime.TypeByExtension(ext)); err == nil {
			return mediaType{value: t}
		}
	}
	return mediaType{value: typeByContent(content)}
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
	return octetStream
}

// isBinary is true for control characters that no text file has.
func isBinary(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f' || r == 0x7f
}
