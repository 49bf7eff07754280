package mailer

import (
	"bytes"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Lengths of lines without their CRLF (RFC 5322, 2.1.1).
const (
	maxFoldedLine = 78  // where there is white space to fold at
	maxLine       = 998 // always
)

// headerWriter appends header fields to buf and folds them.
type headerWriter struct {
	buf   []byte
	line  int    // where the current line begins in buf
	fresh bool   // the current field has nothing but its name yet
	coded bool   // the current line has an encoded word
	folds int    // how many lines were folded so far
	field string // what errors call the current field
	long  string // the first field with a line over maxLine, or ""
}

// begin starts a field. Errors name it by field.
func (h *headerWriter) begin(name, field string) {
	h.field = field
	h.line = len(h.buf)
	h.fresh = true
	h.coded = false
	h.buf = append(h.buf, name...)
	h.buf = append(h.buf, ':')
}

func (h *headerWriter) end() {
	h.checkLine()
	h.buf = append(h.buf, "\r\n"...)
}

func (h *headerWriter) column() int { return len(h.buf) - h.line }

func (h *headerWriter) checkLine() {
	if h.column() > maxLine && h.long == "" {
		h.long = h.field
	}
}

// fold ends the line, if something stands on it. White space has to follow.
//
// This is the only place where a field gets another line. One with nothing but white space
// must never come about: to most readers it ends the header, and what was to follow is body.
func (h *headerWriter) fold() {
	if isBlankBytes(h.buf[h.line:]) {
		return
	}
	h.end()
	h.line = len(h.buf)
	h.coded = false
	h.folds++
}

// isBlankBytes reports whether a line has only white space. It looks from the end, where
// there is most often none.
func isBlankBytes(line []byte) bool {
	for _, c := range slices.Backward(line) {
		if !isSpace(c) {
			return false
		}
	}
	return true
}

// put appends white space and a word after it. It folds before the white space if
// the line would get too long, but not between the name and the first word: not
// all programs that read mail expect that.
func (h *headerWriter) put(gap, word string) {
	limit := maxFoldedLine
	if h.coded {
		limit = maxWordLine
	}
	if !h.fresh && h.column()+len(gap)+len(word) > limit {
		h.fold()
	}
	h.fresh = false
	h.buf = append(h.buf, gap...)
	h.buf = append(h.buf, word...)
}

// words appends an ASCII text that may be folded at its white space. suffix
// belongs to its last word.
func (h *headerWriter) words(text, suffix string) {
	gap := " "
	for {
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		next := end
		for next < len(text) && isSpace(text[next]) {
			next++
		}
		switch {
		case next == len(text): // white space at the end must not come to stand on a line of its own
			h.put(gap, text+suffix)
			return
		case end == 0: // white space at the beginning
			h.buf = append(h.buf, gap...)
		default:
			h.put(gap, text[:end])
		}
		gap, text = text[end:next], text[next:]
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// encoded appends a text as encoded words.
func (h *headerWriter) encoded(e wordEncoder, text string) {
	for text != "" {
		before := len(text)
		h.coded = true
		h.buf = append(h.buf, ' ')
		h.buf, text = e.next(h.buf, text, min(maxWord, maxWordLine-h.column()))
		if len(text) == before { // no room
			h.buf = h.buf[:len(h.buf)-1]
			h.fold()
		}
		h.fresh = false
	}
}

// text writes a whole field of free text (RFC 5322, 3.6.5): as it is if it is
// ASCII, else as encoded words.
func (h *headerWriter) text(name, field, value string, cs charset) {
	h.begin(name, field)
	if isASCII(value) {
		h.words(value, "")
	} else {
		h.encoded(newWordEncoder(cs, value, false), value)
	}
	h.end()
}

// subject is text whose words may be of any length: it is read by people only,
// who do not see how it is encoded.
func (h *headerWriter) subject(value string, cs charset) {
	if !isASCII(value) || !hasLongWord(value) {
		h.text("Subject", "subject", value, cs)
		return
	}
	h.begin("Subject", "subject")
	h.encoded(newWordEncoder(cs, value, false), value)
	h.end()
}

// hasLongWord says whether s has a word, or a gap between words, that might make
// a line longer than a line may be.
func hasLongWord(s string) bool {
	const most = maxLine / 2
	word, gap := 0, 0
	for i := range len(s) {
		if isSpace(s[i]) {
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

// addresses writes a whole field of addresses, folded between them where possible.
func (h *headerWriter) addresses(name, field string, boxes iter.Seq[mailbox], cs charset) {
	h.begin(name, field)
	var last mailbox // which is written when it is known whether a comma follows
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
	h.end()
}

// entry writes an address of a list, on a line of its own if it does not fit on this one.
func (h *headerWriter) entry(box mailbox, comma string, cs charset) {
	fresh, folds, mark := h.fresh, h.folds, len(h.buf)
	h.mailbox(box, comma, cs)
	if !fresh && h.folds > folds {
		h.buf = h.buf[:mark]
		h.restore(mark)
		h.fold()
		h.mailbox(box, comma, cs)
	}
}

// restore finds the current line again after buf was cut at mark.
func (h *headerWriter) restore(mark int) {
	h.line = bytes.LastIndexByte(h.buf[:mark], '\n') + 1
}

func (h *headerWriter) mailbox(box mailbox, comma string, cs charset) {
	switch name := box.name; {
	case box.verbatim != "":
		h.words(box.verbatim, comma)
		return
	case name == "":
		h.put(" ", box.addr+comma)
		return
	case !isASCII(name) || hasLongWord(name):
		h.encoded(newWordEncoder(cs, name, true), name)
	case isPhrase(name):
		h.words(name, "")
	default:
		h.words(quote(name), "")
	}
	h.put(" ", "<"+box.addr+">"+comma)
}

// isPhrase says whether a name can do without quotes. One that looks like an
// encoded word cannot: it would be decoded.
func isPhrase(name string) bool {
	if strings.Contains(name, "=?") {
		return false
	}
	for word := range strings.SplitSeq(name, " ") {
		for i := range len(word) {
			if !isAtext(word[i]) {
				return false
			}
		}
		if word == "" {
			return false
		}
	}
	return true
}

// param appends "; name=value", or what RFC 2231 has for a value beyond ASCII. So does one
// with a control character, which a percent-encoded value of a raw message may hold: no
// quotes would keep a line end in it from ending the field.
func (h *headerWriter) param(name, value string) {
	h.buf = append(h.buf, ';')
	switch {
	case !isASCII(value) || !isClean(value, withoutTab):
		value = "utf-8''" + percentEncode(value)
		name += "*"
	case !isToken(value):
		value = quote(value)
	}
	h.put(" ", name+"="+value)
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

// isToken says whether s is a token (RFC 2045, 5.1), which needs no quotes.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// indexed names a part of a list's entry, as in "attachments[2].filename".
func indexed(list string, i int, part string) string {
	return list + "[" + strconv.Itoa(i) + "]." + part
}
