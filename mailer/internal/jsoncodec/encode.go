package jsoncodec

import "github.com/go-json-experiment/json/jsontext"

// AppendString appends s as a JSON string, and reports whether it is valid UTF-8.
func AppendString(dst []byte, s string) (_ []byte, valid bool) {
	dst, err := jsontext.AppendQuote(dst, s)
	return dst, err == nil
}
