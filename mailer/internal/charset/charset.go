package charset

import (
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// Charset is how the texts of a message become bytes.
type Charset struct {
	Name   string            // for the charset parameter and encoded words
	enc    encoding.Encoding // nil: UTF-8
	strict *strictness       // nil: what enc writes is right
}

// UTF8 returns the charset UTF-8.
func UTF8() Charset { return Charset{Name: "utf-8"} }

// IsUTF8 reports whether the charset is UTF-8.
func (c Charset) IsUTF8() bool { return c.enc == nil }

// Lookup finds a charset by any of its usual names. One in which ASCII does
// not stand for itself, such as UTF-16 or HZ, cannot be used for mail text (RFC 2046,
// 4.1.2): it becomes UTF-8. So does x-user-defined, which only browsers know.
func Lookup(name string) (cs Charset, ok bool) {
	if name == "" || strings.EqualFold(name, "utf-8") {
		return UTF8(), true
	}
	enc := findEncoding(name)
	if enc == nil {
		return cs, false
	}
	cs = Charset{enc: enc}
	var err error
	if cs.Name, err = ianaindex.MIME.Name(enc); err != nil {
		// Never what the author wrote, which may have blanks around it.
		if cs.Name, err = htmlindex.Name(enc); err != nil {
			return cs, false
		}
	}
	cs.strict = strict(cs.Name)
	const probe = "a~\\\r\n"
	if b, ok := cs.encode(probe); strings.EqualFold(cs.Name, "utf-8") || cs.Name == "x-user-defined" || !ok || string(b) != probe {
		return UTF8(), true
	}
	return cs, true
}

// findEncoding asks IANA's list first, because WHATWG's, which browsers use, takes ISO-8859-1
// for Windows-1252. It returns nil if neither knows the name.
func findEncoding(name string) encoding.Encoding {
	name = strings.ToLower(name)
	names := []string{name, registeredName(name)}
	for _, n := range names {
		if enc, err := ianaindex.MIME.Encoding(n); err == nil && enc != nil {
			return enc
		}
	}
	for _, n := range names {
		if enc, err := htmlindex.Get(n); err == nil {
			return enc
		}
	}
	return nil
}

// registeredName turns names that Python has for charsets into those of the lists.
func registeredName(name string) string {
	name = strings.ReplaceAll(name, "_", "-")
	switch {
	case name == "ascii":
		return "us-ascii"
	case strings.HasPrefix(name, "iso8859"):
		return "iso-8859" + strings.TrimPrefix(name, "iso8859")
	case strings.HasPrefix(name, "latin-"):
		return "latin" + strings.TrimPrefix(name, "latin-")
	}
	return name
}

// encode returns s in the charset, or false if s has a character that the charset lacks or that
// not everybody who knows the charset would read.
func (c Charset) encode(s string) ([]byte, bool) {
	if c.enc == nil {
		return []byte(s), true
	}
	b, err := c.enc.NewEncoder().Bytes([]byte(s))
	if err != nil || !c.strict.allows(s, b) {
		return nil, false
	}
	return b, true
}

// OrUTF8 returns s, with end behind it, in the charset, and the charset itself: UTF-8 if this one
// does not have all the characters of s.
func (c Charset) OrUTF8(s, end string) (Charset, []byte) {
	if c.enc != nil {
		if b, ok := c.encode(s + end); ok {
			return c, b
		}
		c = UTF8()
	}
	b := make([]byte, 0, len(s)+len(end)) // a text may be big: it is copied once
	return c, append(append(b, s...), end...)
}
