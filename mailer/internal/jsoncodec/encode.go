package jsoncodec

import (
	"bytes"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendString appends s as a JSON string, and reports whether it is valid UTF-8.
//
// It is what jsontext.AppendQuote does: most of a mail is lines of plain text, which are copied here as they are, and that takes less
// than half of the time.
func AppendString(dst []byte, s string) (_ []byte, valid bool) {
	if !utf8.ValidString(s) {
		dst, err := jsontext.AppendQuote(dst, s)
		return dst, err == nil
	}
	dst = append(dst, '"')
	for {
		n := plain(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return append(dst, '"'), true
		}
		dst = appendEscape(dst, s[n])
		s = s[n+1:]
	}
}

// plain is how many bytes there are before the first one that has to be escaped. It looks at eight at a time: "Bit Twiddling
// Hacks", determine if a word has a byte less than n. Of a word only its first such byte is found for certain.
func plain(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		quote, backslash := x^'"'*ones, x^'\\'*ones
		found := ((x - ' '*ones) & ^x) | ((quote - ones) & ^quote) | ((backslash - ones) & ^backslash)
		if found &= highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// short are the escapes of one letter, by what they stand for.
var short = [' ']byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't'}

func appendEscape(dst []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch {
	case c >= ' ':
		return append(dst, '\\', c)
	case short[c] != 0:
		return append(dst, '\\', short[c])
	}
	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}

// unquoted is what a string stands for, which jsontext has found to be valid, in half the time that jsontext takes. It is false for strings
// with escapes by number.
func unquoted(quoted []byte) (text string, ok bool) {
	s := quoted[1 : len(quoted)-1]
	n := bytes.IndexByte(s, '\\')
	if n < 0 {
		return string(s), true
	}
	var b strings.Builder
	b.Grow(len(s)) // a text may be big: it is copied once
	for ; n >= 0; n = bytes.IndexByte(s, '\\') {
		b.Write(s[:n])
		c := s[n+1]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			return "", false
		}
		b.WriteByte(c)
		s = s[n+2:]
	}
	b.Write(s)
	return b.String(), true
}
