// Package packed writes texts and numbers one behind the other, each as short as it can be, for what is kept in Redis by the million,
// and reads them again.
package packed

import (
	"encoding/binary"
	"unicode/utf8"
)

// AppendText appends a text with its length. What is beyond so many bytes is left out, in whole characters.
func AppendText(data []byte, text string, most int) []byte {
	if len(text) > most {
		for most > 0 && !utf8.RuneStart(text[most]) {
			most--
		}
		text = text[:most]
	}
	data = binary.AppendUvarint(data, uint64(len(text)))
	return append(data, text...)
}

// A Reader takes fields from the front of what is left, in the order in which they were appended. Where there is none of the wanted
// kind it returns a zero value and has failed.
type Reader struct {
	Left   string
	Failed bool
}

// Byte takes a byte.
func (r *Reader) Byte() byte {
	if len(r.Left) == 0 {
		r.Failed = true
		return 0
	}
	b := r.Left[0]
	r.Left = r.Left[1:]
	return b
}

// Number takes what binary.AppendUvarint has appended.
func (r *Reader) Number() uint64 {
	n, size := binary.Uvarint([]byte(r.Left[:min(len(r.Left), binary.MaxVarintLen64)]))
	if size <= 0 {
		r.Failed = true
		return 0
	}
	r.Left = r.Left[size:]
	return n
}

// Text takes what [AppendText] has appended.
func (r *Reader) Text() string {
	n := r.Number()
	if n > uint64(len(r.Left)) {
		r.Failed = true
		return ""
	}
	text := r.Left[:n]
	r.Left = r.Left[n:]
	return text
}
