// Package jsoncodec reads and writes JSON of known shapes with jsontext: objects, lists, strings, base64 and
// true or false. It knows nothing of messages.
//
// It never looks at a Go type, which makes it several times as fast as encoding/json: decoding is what
// a worker would spend most of its time on. It is also stricter, and its errors name the field.
package jsoncodec
