package charset

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// Limits of RFC 2047, section 2.
const (
	MaxWord     = 75 // an encoded word
	MaxWordLine = 76 // a line that holds one
)

// maxCharsetName leaves room in an encoded word for at least one character. No charset has a
// longer name, but if one had, the loop that writes words would never end.
const maxCharsetName = 40

// Words cuts a text into encoded words (RFC 2047) of whole characters.
type Words struct {
	cs     Charset
	q      bool // Q encoding, else B
	phrase bool // in a display name, where fewer characters stand for themselves
}

// NewWords returns the Words for a text: in cs, or in UTF-8 if cs lacks one of its characters,
// and in the Q or the B encoding, whichever is shorter; ISO-2022-JP is always in B (RFC 1468). phrase is for a display name (RFC 2047,
// 5), where fewer characters stand for themselves.
func NewWords(cs Charset, text string, phrase bool) Words {
	if len(cs.Name) > maxCharsetName {
		cs = UTF8()
	}
	cs, b := cs.OrUTF8(text, "")
	e := Words{cs: cs, phrase: phrase}
	e.q = !strings.EqualFold(cs.Name, "iso-2022-jp") && e.qLen(b) <= base64.StdEncoding.EncodedLen(len(b))
	return e
}

// overhead is the length of an empty word.
func (e Words) overhead() int { return len("=?") + len(e.cs.Name) + len("?q?") + len("?=") }

// Next appends one word of at most room bytes and returns what is left of the
// text. If not even one character fits, it appends nothing.
func (e Words) Next(dst []byte, text string, room int) (longer []byte, rest string) {
	n := e.fit(text, room-e.overhead())
	if n == 0 {
		return dst, text
	}
	b, _ := e.cs.encode(text[:n]) // the whole text was found to fit the charset
	return e.appendWord(dst, b), text[n:]
}

// fit returns how much of the text makes at most room bytes when encoded.
func (e Words) fit(text string, room int) int {
	n, used := 0, 0
	for n < len(text) {
		_, size := utf8.DecodeRuneInString(text[n:])
		switch {
		case e.cs.enc != nil: // the bytes may depend on what comes before
			b, _ := e.cs.encode(text[:n+size])
			used = e.encodedLen(b)
		case e.q:
			used += e.qLen([]byte(text[n : n+size]))
		default:
			used = base64.StdEncoding.EncodedLen(n + size)
		}
		if used > room {
			break
		}
		n += size
	}
	return n
}

func (e Words) encodedLen(b []byte) int {
	if e.q {
		return e.qLen(b)
	}
	return base64.StdEncoding.EncodedLen(len(b))
}

func (e Words) qLen(b []byte) int {
	n := 0
	for _, c := range b {
		if c == ' ' || e.literal(c) {
			n++
		} else {
			n += len("=XX")
		}
	}
	return n
}

// literal reports whether c stands for itself in the Q encoding (RFC 2047, 4.2 and 5).
func (e Words) literal(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
		c == '!', c == '*', c == '+', c == '-', c == '/':
		return true
	case e.phrase:
		return false
	}
	return ' ' < c && c <= '~' && c != '=' && c != '?' && c != '_'
}

func (e Words) appendWord(dst, b []byte) []byte {
	dst = append(dst, "=?"...)
	dst = append(dst, e.cs.Name...)
	if !e.q {
		dst = append(dst, "?b?"...)
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, "?="...)
	}
	dst = append(dst, "?q?"...)
	for _, c := range b {
		switch {
		case c == ' ':
			dst = append(dst, '_')
		case e.literal(c):
			dst = append(dst, c)
		default:
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return append(dst, "?="...)
}

// CutWord cuts a text around its first encoded word. If it has none, word is "" and before is all of
// it.
func CutWord(text string) (before, word, after string) {
	for at := 0; ; {
		i := strings.Index(text[at:], "=?")
		if i < 0 {
			return text, "", ""
		}
		at += i
		if n := wordLen(text[at:]); n > 0 {
			return text[:at], text[at : at+n], text[at+n:]
		}
		at += len("=?")
	}
}

// wordLen returns the length of the encoded word that s begins with, or 0 if it is none. It may be
// longer than one may be: it is another program's.
func wordLen(s string) int {
	name := strings.IndexByte(s[2:], '?')
	if name <= 0 || name > maxCharsetName || strings.ContainsFunc(s[2:2+name], isNoToken) {
		return 0
	}
	at := 2 + name // of the second question mark
	if len(s) < at+len("?q??=") || strings.IndexByte("bBqQ", s[at+1]) < 0 || s[at+2] != '?' {
		return 0
	}
	start := at + len("?q?")
	end := strings.IndexByte(s[start:], '?')
	if end < 0 || !strings.HasPrefix(s[start+end:], "?=") || strings.ContainsFunc(s[start:start+end], isNoToken) {
		return 0
	}
	return start + end + len("?=")
}

func isNoToken(r rune) bool { return r <= ' ' || r > '~' }

const upperHex = "0123456789ABCDEF"
