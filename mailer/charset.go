package mailer

import (
	"bytes"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// charset is how the texts of a message become octets.
type charset struct {
	name string            // for the charset parameter and encoded words
	enc  encoding.Encoding // nil: UTF-8
}

func utf8Charset() charset { return charset{name: "utf-8"} }

// lookupCharset finds a charset by any of its usual names. One in which ASCII does
// not stand for itself, such as UTF-16, cannot be used for mail text (RFC 2046,
// 4.1.2): it becomes UTF-8.
func lookupCharset(name string) (cs charset, ok bool) {
	if name == "" || strings.EqualFold(name, "utf-8") {
		return utf8Charset(), true
	}
	enc := findEncoding(name)
	if enc == nil {
		return cs, false
	}
	cs = charset{name: name, enc: enc}
	if official, err := ianaindex.MIME.Name(enc); err == nil {
		cs.name = official
	}
	const probe = "a\r\n"
	if b, ok := cs.encode(probe); strings.EqualFold(cs.name, "utf-8") || !ok || string(b) != probe {
		return utf8Charset(), true
	}
	return cs, true
}

// findEncoding knows the names of IANA first, for the list of WHATWG takes
// ISO-8859-1 and US-ASCII for Windows-1252; then the spellings of Python.
func findEncoding(name string) encoding.Encoding {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	for _, n := range []string{name, strings.Replace(name, "iso8859", "iso-8859", 1), strings.Replace(name, "latin-", "latin", 1)} {
		if enc, err := ianaindex.MIME.Encoding(n); err == nil && enc != nil {
			return enc
		}
	}
	if name == "shift-jis" || name == "euc-jp" || name == "ascii" {
		name = strings.ReplaceAll(name, "-", "_")
	}
	if enc, err := ianaindex.MIME.Encoding(name); err == nil && enc != nil {
		return enc
	}
	if enc, err := htmlindex.Get(name); err == nil {
		return enc
	}
	return nil
}

// encode returns s in the charset; false if it has a character that the
// charset has not.
func (c charset) encode(s string) ([]byte, bool) {
	if c.enc == nil {
		return []byte(s), true
	}
	b, err := c.enc.NewEncoder().Bytes([]byte(s))
	if err != nil {
		return nil, false
	}
	// The encoder knows half-width katakana, which ISO-2022-JP for mail
	// (RFC 1468) does not, and neither do many who read it.
	if strings.EqualFold(c.name, "iso-2022-jp") && bytes.Contains(b, []byte("\x1b(I")) {
		return nil, false
	}
	return b, true
}

// orUTF8 returns the charset and s in it; UTF-8 if the charset cannot hold s.
func (c charset) orUTF8(s string) (charset, []byte) {
	if b, ok := c.encode(s); ok {
		return c, b
	}
	return utf8Charset(), []byte(s)
}
