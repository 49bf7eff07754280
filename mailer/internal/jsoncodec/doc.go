// Package jsoncodec reads and writes JSON of known shapes: objects, lists, strings, base64 and
// true or false. It knows nothing of messages.
//
// It is several times as fast as encoding/json, because it never looks at a type: decoding is what
// a worker would spend most of its time on. It is also stricter, and its errors name the field.
package jsoncodec
