package mimewriter

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// MaxLine is the longest that a line may be, without its CRLF (RFC 5322, 2.1.1).
const MaxLine = 998

const upperHex = "0123456789ABCDEF"

// maxFoldedLine is the longest that a line should be: header fields are folded so, if there is
// white space to fold at.
const maxFoldedLine = 78

// Header appends header fields to Buf and folds them. Its zero value is ready to use.
type Header struct {
	Buf  []byte
	Long string // the first field with a line over MaxLine, as errors call the field, or ""

	// KeepWords is for texts of another program: the encoded words in one that has more to be encoded
	// stay as they are.
	KeepWords bool

	line  int    // where the current line begins in Buf
	fresh bool   // the current field has nothing but its name yet
	coded bool   // the current line has an encoded word
	folds int    // how many lines were folded so far
	field string // what errors call the current field
}

// Begin starts a field. Errors name it by field.
func (h *Header) Begin(name, field string) {
	h.field = field
	h.line = len(h.Buf)
	h.fresh = true
	h.coded = false
	h.Buf = append(h.Buf, name...)
	h.Buf = append(h.Buf, ':')
}

// End ends a field.
func (h *Header) End() {
	h.checkLine()
	h.Buf = append(h.Buf, "\r\n"...)
}

func (h *Header) column() int { return len(h.Buf) - h.line }

func (h *Header) checkLine() {
	if h.column() > MaxLine && h.Long == "" {
		h.Long = h.field
	}
}

// fold ends the line, if something stands on it. White space has to follow.
//
// This is the only place where a field gets another line. One with nothing but white space
// must never come about: to most readers it ends the header, and what was to follow is body.
func (h *Header) fold() {
	if isBlankBytes(h.Buf[h.line:]) {
		return
	}
	h.End()
	h.line = len(h.Buf)
	h.coded = false
	h.folds++
}

// isBlankBytes reports whether a line has only white space. It looks from the end, where
// there is most often none.
func isBlankBytes(line []byte) bool {
	for _, c := range slices.Backward(line) {
		if !charset.IsSpace(c) {
			return false
		}
	}
	return true
}

// Put appends white space and a word after it. It folds before the white space if
// the line would get too long, but not between the name and the first word: not
// all programs that read mail expect that.
func (h *Header) Put(gap, word string) {
	limit := maxFoldedLine
	coded := h.KeepWords && strings.HasPrefix(word, "=?") && strings.Contains(word, "?=")
	if h.coded || coded {
		limit = charset.MaxWordLine
	}
	if !h.fresh && h.column()+len(gap)+len(word) > limit {
		h.fold()
	}
	h.fresh = false
	h.coded = h.coded || coded
	h.Buf = append(h.Buf, gap...)
	h.Buf = append(h.Buf, word...)
}

// words appends an ASCII text that may be folded at its white space. suffix
// belongs to its last word.
func (h *Header) words(text, suffix string) {
	gap := " "
	for {
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		next := end
		for next < len(text) && charset.IsSpace(text[next]) {
			next++
		}
		switch {
		case next == len(text): // white space at the end must not come to stand on a line of its own
			h.Put(gap, text+suffix)
			return
		case end == 0: // white space at the beginning
			h.Buf = append(h.Buf, gap...)
		default:
			h.Put(gap, text[:end])
		}
		gap, text = text[end:next], text[next:]
	}
}

// encoded appends a text as encoded words, between two brackets or "".
func (h *Header) encoded(e charset.Words, opening, text, closing string) {
	for text != "" {
		before, mark := len(text), len(h.Buf)
		h.coded = true
		h.Buf = append(h.Buf, ' ')
		h.Buf = append(h.Buf, opening...)
		h.Buf, text = e.Next(h.Buf, text, min(charset.MaxWord, charset.MaxWordLine-h.column()-len(closing)))
		if len(text) == before { // no room
			h.Buf = h.Buf[:mark]
			h.fold()
		} else {
			opening = ""
		}
		h.fresh = false
	}
	h.Buf = append(h.Buf, closing...)
}

// Text writes a whole field of free text (RFC 5322, 3.6.5): as it is if it is
// ASCII, else as encoded words.
func (h *Header) Text(name, field, value string, cs charset.Charset) {
	h.Begin(name, field)
	if charset.IsASCII(value) {
		h.words(value, "")
	} else {
		h.text("", value, "", false, cs)
	}
	h.End()
}

// Encoded writes a whole field of free text as encoded words, whose words may be of any length.
func (h *Header) Encoded(name, field, value string, cs charset.Charset) {
	h.Begin(name, field)
	h.text("", value, "", false, cs)
	h.End()
}

// text appends a text as encoded words, between two brackets or "". White space between two encoded
// words is none (RFC 2047, 6.2), so what stands beside one that is kept has its own inside.
func (h *Header) text(opening, text, closing string, phrase bool, cs charset.Charset) {
	if !h.KeepWords || !strings.Contains(text, "=?") {
		h.encoded(charset.NewWords(cs, text, phrase), opening, text, closing)
		return
	}
	text = strings.Trim(text, " \t")
	for text != "" {
		before, word, after := charset.CutWord(text)
		end := closing
		if word != "" {
			end = ""
		}
		if strings.Trim(before, " \t") != "" {
			h.encoded(charset.NewWords(cs, before, phrase), opening, before, end)
			opening = ""
		}
		if word != "" {
			if after == "" {
				end = closing
			}
			h.coded = true
			h.Put(" ", opening+word+end)
			opening, h.coded = "", true // also if that has begun a line
		}
		text = after
	}
}

// Subject is text whose words may be of any length: it is read by people only,
// who do not see how it is encoded.
func (h *Header) Subject(value string, cs charset.Charset) {
	if !charset.IsASCII(value) || !hasLongWord(value) {
		h.Text("Subject", "subject", value, cs)
		return
	}
	h.Encoded("Subject", "subject", value, cs)
}

// hasLongWord reports whether s has a word, or a gap between words, that might make
// a line longer than a line may be.
func hasLongWord(s string) bool {
	const most = MaxLine / 2
	word, gap := 0, 0
	for i := range len(s) {
		if charset.IsSpace(s[i]) {
			word, gap = 0, gap+1
		} else {
			word, gap = word+1, 0
		}
		if word > most || gap > most {
			return true
		}
	}
	return false
}

// Addresses writes a whole field of addresses, folded between them where possible.
func (h *Header) Addresses(name, field string, boxes []address.Mailbox, cs charset.Charset) {
	h.Begin(name, field)
	for i, box := range boxes {
		comma := ","
		if i == len(boxes)-1 {
			comma = ""
		}
		h.entry(box, comma, cs)
	}
	h.End()
}

// AddressSeq is Addresses for those of a text, which may be very many: no list is made of them.
func (h *Header) AddressSeq(name, field string, boxes iter.Seq[address.Mailbox], cs charset.Charset) {
	h.Begin(name, field)
	var last address.Mailbox // which is written when it is known whether a comma follows
	n := 0
	for box := range boxes {
		if n > 0 {
			h.entry(last, ",", cs)
		}
		last = box
		n++
	}
	if n > 0 {
		h.entry(last, "", cs)
	}
	h.End()
}

// entry writes an address of a list, on a line of its own if it does not fit on this one.
func (h *Header) entry(box address.Mailbox, comma string, cs charset.Charset) {
	fresh, folds, mark := h.fresh, h.folds, len(h.Buf)
	h.mailbox(box, comma, cs)
	if !fresh && h.folds > folds {
		h.Buf = h.Buf[:mark]
		h.restore(mark)
		h.fold()
		h.mailbox(box, comma, cs)
	}
}

// restore finds the current line again after buf was cut at mark.
func (h *Header) restore(mark int) {
	h.line = bytes.LastIndexByte(h.Buf[:mark], '\n') + 1
}

func (h *Header) mailbox(box address.Mailbox, comma string, cs charset.Charset) {
	var more address.More
	if box.More != nil {
		more = *box.More
	}
	if more.Closes {
		comma = ";" + comma
	}
	switch {
	case more.Opens == "":
	case box.Addr == "":
		h.Words(more.Opens, ":"+comma, cs)
		return
	default:
		h.Words(more.Opens, ":", cs)
	}
	end := comma
	if len(more.Comments) > 0 {
		end = ""
	}
	switch {
	case box.Verbatim != "":
		h.words(box.Verbatim, end)
	case box.Name == "":
		h.Put(" ", box.Addr+end)
	default:
		switch {
		case more.Encoded && h.KeepWords:
			h.text("", box.Name, "", true, cs)
		case more.Encoded && charset.IsASCII(box.Name):
			h.words(box.Name, "")
		default:
			h.Phrase(box.Name, "", cs)
		}
		h.Put(" ", "<"+box.Addr+">"+end)
	}
	for i, comment := range more.Comments {
		if i == len(more.Comments)-1 {
			end = comma
		}
		h.Comment(comment, end, cs)
	}
}

// Phrase appends the words of a name (RFC 5322, 3.2.5), which is what a reader sees: in quotes or
// encoded if they have to be. suffix is the special behind it, or "".
func (h *Header) Phrase(name, suffix string, cs charset.Charset) {
	switch {
	case !charset.IsASCII(name) || hasLongWord(name):
		h.encoded(charset.NewWords(cs, name, true), "", name, "")
		if suffix != "" {
			h.Put(" ", suffix) // an encoded word stands alone (RFC 2047, 5)
		}
	case isPhrase(name):
		h.words(name, suffix)
	default:
		h.words(address.Quote(name), suffix)
	}
}

// Words appends a text that may be folded at its white space: as it is if it is ASCII, else as
// the encoded words of a phrase.
func (h *Header) Words(text, suffix string, cs charset.Charset) {
	switch {
	case !charset.IsASCII(text):
		h.text("", text, "", true, cs)
		if suffix != "" {
			h.Put(" ", suffix)
		}
	case suffix != "" && strings.HasSuffix(text, "?="):
		h.words(text, " "+suffix)
	default:
		h.words(text, suffix)
	}
}

// Comment appends a comment (RFC 5322, 3.2.2). comment is what stands between its parentheses.
func (h *Header) Comment(comment, suffix string, cs charset.Charset) {
	if charset.IsASCII(comment) {
		h.words("("+comment+")", suffix)
		return
	}
	text := strings.Trim(address.Unescape(comment), " \t")
	h.text("(", text, ")"+suffix, true, cs)
}

// isPhrase reports whether a name can do without quotes. One that looks like an
// encoded word cannot: it would be decoded.
func isPhrase(name string) bool {
	if strings.Contains(name, "=?") {
		return false
	}
	for word := range strings.SplitSeq(name, " ") {
		for i := range len(word) {
			if !address.IsAtext(word[i]) {
				return false
			}
		}
		if word == "" {
			return false
		}
	}
	return true
}

// Suffix appends what belongs to the last word.
func (h *Header) Suffix(s string) { h.Buf = append(h.Buf, s...) }

// Param appends "; name=value", or what RFC 2231 has for a value beyond ASCII. So does one
// with a control character, which a percent-encoded value of a raw message may hold: no
// quotes would keep a line end in it from ending the field. A value that is too long for a line
// goes on in several (RFC 2231, 3).
func (h *Header) Param(name, value string) {
	const longest = MaxLine - len(" *=;")
	plain := charset.IsASCII(value) && charset.IsClean(value, charset.WithoutTab)
	written := value
	switch {
	case !plain:
		written = extended + percentEncode(value)
	case !isToken(value):
		written = address.Quote(value)
	}
	h.Buf = append(h.Buf, ';')
	switch {
	case len(name)+len(written) > longest:
		h.continued(name, value)
	case plain:
		h.Put(" ", name+"="+written)
	default:
		h.Put(" ", name+"*="+written)
	}
}

// extended begins a value beyond ASCII (RFC 2231, 4).
const extended = "utf-8''"

// continued appends a parameter in pieces of whole characters, each on a line of its own.
func (h *Header) continued(name, value string) {
	start := extended
	for i := 0; value != ""; i++ {
		piece, some := fmt.Sprintf("%s*%d*=%s", name, i, start), false // one character at least, however long the name is
		for value != "" {
			_, size := utf8.DecodeRuneInString(value)
			char := percentEncode(value[:size])
			if full := len(" ;")+len(piece)+len(char) > maxFoldedLine; full && some {
				break
			}
			piece, value, some = piece+char, value[size:], true
		}
		if i > 0 {
			h.Buf = append(h.Buf, ';')
		}
		h.Put(" ", piece)
		start = ""
	}
}

// percentEncode leaves the attribute-char of RFC 2231, section 7, as they are.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isToken(s[i:i+1]) && strings.IndexByte("*'%", c) < 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return b.String()
}

// Date writes the Date field.
func (h *Header) Date(t time.Time) {
	h.Buf = append(h.Buf, "Date: "...)
	h.Buf = t.AppendFormat(h.Buf, time.RFC1123Z)
	h.Buf = append(h.Buf, "\r\n"...)
}

// ContentType writes the Content-Type field.
func (h *Header) ContentType(t MediaType) { h.ContentParams("Content-Type", t) }

// ContentParams writes a field with parameters, in the order of their names.
func (h *Header) ContentParams(field string, t MediaType) {
	h.Begin(field, field)
	h.Put(" ", t.Value)
	for _, p := range t.params {
		h.Param(p.name, p.value)
	}
	h.End()
}
