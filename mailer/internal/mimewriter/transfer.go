package mimewriter

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"iter"
	"math/bits"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Encoding is a Content-Transfer-Encoding (RFC 2045, 6).
type Encoding string

// The encodings.
const (
	SevenBit        Encoding = "7bit"
	EightBit        Encoding = "8bit" // never sent, and never chosen: not every server on a message's way takes it
	QuotedPrintable Encoding = "quoted-printable"
	Base64          Encoding = "base64"
)

// Choose returns the shortest encoding that content can have, by all of it. Content in
// Lines is text, whose line ends become CRLF. That of other content must come
// out as they went in, and mail systems are free with line ends, so they
// have to be encoded.
func Choose(content []byte, inLines bool) Encoding {
	if IsSevenBit(content, inLines) {
		return SevenBit
	}
	m := measurement{ahead: len(content)}
	if !inLines {
		m.line(content)
		return m.shortest()
	}
	for line, ended := range Lines(content) {
		m.line(line)
		if ended {
			m.ends++
			m.ahead--
		}
		if m.clear {
			break
		}
	}
	return m.shortest()
}

// measurement is what one pass over a content finds that is not 7bit.
type measurement struct {
	plain   int // bytes so far, without those of line ends
	special int // how many of them take three in quoted-printable
	breaks  int // lines that quoted-printable adds
	ends    int // line ends so far
	ahead   int // bytes that are not measured yet

	clear bool // it is base64, whatever follows
}

// line measures a line. A long one is measured in pieces, until all is clear.
func (m *measurement) line(line []byte) {
	const piece = 4 << 10
	before := m.special
	for rest := line; len(rest) > 0 && !m.clear; {
		n := min(len(rest), piece)
		m.special += countSpecial(rest[:n])
		rest = rest[n:]
		m.plain += n
		m.ahead -= n
		// Even if all that is ahead were line ends, each of them two bytes. (base64 is in steps of three.)
		most := m.plain + 2*(m.ends+m.ahead)
		m.clear = 2*m.special > base64Len(most+3)-most
	}
	if n := len(line); n > 0 && charset.IsSpace(line[n-1]) {
		m.special++
	}
	// What is encoded is not cut in two, so lines with it are a little shorter. 74 is their length in
	// the mean: to know it would take a look at each byte.
	switch special := m.special - before; {
	case len(line)+2*special <= maxQuoted:
	case special == 0:
		m.breaks += (len(line) - 1) / maxQuoted
	default:
		m.breaks += (len(line) + 2*special - 1) / (maxQuoted - 1)
	}
}

func (m *measurement) shortest() Encoding {
	plain := m.plain + m.ends*len("\r\n")
	if m.clear || plain+2*m.special+m.breaks*len("=\r\n") > base64Len(plain) {
		return Base64
	}
	return QuotedPrintable
}

// countSpecial counts the bytes that do not stand for themselves in quoted-printable.
//
// It looks at eight bytes at a time, and has no branch for what they are. In a word of 7-bit bytes a
// sum with 0x7f sets the highest bit of all bytes but 0, and so tells, after an XOR, which bytes are
// some character. No such sum reaches the next byte.
func countSpecial(b []byte) (n int) {
	const (
		each = 0x0101010101010101
		high = 0x80 * each
	)
	count := func(x uint64) int {
		low := x &^ high
		printable := low + (0x80-' ')*each
		del := low + (0x80-0x7f)*each
		notEqual := low ^ '='*each + 0x7f*each
		notTab := low ^ '\t'*each + 0x7f*each
		return bits.OnesCount64((x | del | ^notEqual | ^printable&notTab) & high)
	}
	i := 0
	for ; i+8 <= len(b); i += 8 {
		n += count(binary.LittleEndian.Uint64(b[i:]))
	}
	if i < len(b) {
		x := uint64(' ' * each) // a blank is not special
		for _, c := range b[i:] {
			x = x<<8 | uint64(c)
		}
		n += count(x)
	}
	return n
}

// IsSevenBit reports whether content can be written as it is: ASCII without NUL in lines of
// at most 998 bytes.
func IsSevenBit(content []byte, inLines bool) bool {
	if !isASCIIBytes(content) || bytes.IndexByte(content, 0) >= 0 {
		return false
	}
	if !inLines {
		return len(content) <= MaxLine && !bytes.ContainsAny(content, "\r\n")
	}
	for line := range Lines(content) {
		if len(line) > MaxLine {
			return false
		}
	}
	return true
}

// IsReadable reports whether text can be written as it is for people to read (8bit): UTF-8 without
// control characters but tab and line ends, in lines of at most 998 bytes.
func IsReadable(text []byte) bool {
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' }
	return utf8.Valid(text) && bytes.IndexFunc(text, control) < 0 && !HasLongLine(text)
}

// isASCIIBytes looks at eight octets at a time.
func isASCIIBytes(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// Lines yields the lines of a text without their ends, which may be LF, CR or CRLF. The second
// value reports whether the line had an end: only the last one may have none.
func Lines(text []byte) iter.Seq2[[]byte, bool] {
	return func(yield func(line []byte, ended bool) bool) {
		for len(text) > 0 {
			block, ended := text, false
			if i := bytes.IndexByte(text, '\n'); i >= 0 {
				block, text, ended = text[:i], text[i+1:], true
				block = bytes.TrimSuffix(block, []byte("\r"))
			} else {
				text = nil
			}
			for {
				i := bytes.IndexByte(block, '\r')
				if i < 0 {
					break
				}
				if !yield(block[:i], true) {
					return
				}
				block = block[i+1:]
			}
			if (ended || len(block) > 0) && !yield(block, ended) {
				return
			}
		}
	}
}

// Writer writes a message to an io.Writer by way of a buffer, Buf. Callers append whole lines
// to Buf, and use Content for everything long.
type Writer struct {
	Header
	w       io.Writer
	buffers Buffers
	n       int64
	err     error // of w; once it is set, nothing more is written
}

// NewWriter returns a Writer to w that first writes header, which may be in a buffer of buffers.
func NewWriter(w io.Writer, buffers Buffers, header []byte) Writer {
	return Writer{Header: Header{Buf: header}, w: w, buffers: buffers}
}

// Buffers is where a Writer gets its buffers. The zero value gives none: a Writer's buffer then
// grows as it is filled.
type Buffers struct {
	size   int
	lender lender // nil, or who is asked first
}

// NewBuffers returns the Buffers for a message of about size bytes that is written to w. Each
// has room for the whole message or, if the message is big, for a piece of it.
func NewBuffers(w io.Writer, size int) Buffers {
	b := Buffers{size: min(size, flushAt+flushAt/4)}
	b.lender, _ = w.(lender)
	return b
}

// lender is an io.Writer that lends the free end of its own buffer, as bytes.Buffer does. What
// is appended there has to be written at once.
type lender interface{ AvailableBuffer() []byte }

// Next returns an empty buffer.
func (b *Buffers) Next() []byte {
	if b.lender != nil {
		if lent := b.lender.AvailableBuffer(); cap(lent) >= b.size {
			return lent
		}
		b.lender = nil
	}
	return make([]byte, 0, b.size)
}

// flushAt is when the buffer is written out. Nothing that is appended at once is
// much longer.
const flushAt = 32 << 10

func (o *Writer) flushIfFull() {
	if len(o.Buf) < flushAt {
		return
	}
	o.flush()
	if o.buffers.lender != nil {
		o.Buf = o.buffers.Next() // what was lent first has become a part of the message
	}
}

func (o *Writer) flush() {
	if o.err == nil {
		var n int
		n, o.err = o.w.Write(o.Buf)
		o.n += int64(n)
	}
	o.Buf = o.Buf[:0]
}

// Flush writes out the buffer. It returns how many bytes the Writer has written since it was
// made, and the first error of the io.Writer.
func (o *Writer) Flush() (int64, error) {
	o.flush()
	return o.n, o.err
}

// Content writes the content of a part in an encoding. inLines is as in Choose.
func (o *Writer) Content(content []byte, inLines bool, encoding Encoding) {
	switch encoding {
	case QuotedPrintable:
		o.quoted(content, inLines)
	case Base64:
		o.base64(content, inLines)
	default:
		o.plain(content, inLines)
	}
}

// Line ends a line that is in Buf with s.
func (o *Writer) Line(s string) {
	o.Buf = append(o.Buf, s...)
	o.Buf = append(o.Buf, "\r\n"...)
	o.flushIfFull()
}

// plain writes text as it is, but for its line ends.
func (o *Writer) plain(text []byte, inLines bool) {
	if !inLines {
		o.Buf = append(o.Buf, text...)
		return
	}
	for line, ended := range Lines(text) {
		o.Buf = append(o.Buf, line...)
		if ended {
			o.Buf = append(o.Buf, "\r\n"...)
		}
		o.flushIfFull()
	}
}

// quoted writes quoted-printable (RFC 2045, 6.7).
func (o *Writer) quoted(content []byte, inLines bool) {
	if !inLines {
		o.quotedLine(content)
		return
	}
	for line, ended := range Lines(content) {
		o.quotedLine(line)
		if ended {
			o.Buf = append(o.Buf, "\r\n"...)
		}
		o.flushIfFull()
	}
}

// maxQuoted is the length of an encoded line without the = that may end it.
const maxQuoted = 75

func (o *Writer) quotedLine(line []byte) {
	col := 0
	for len(line) > 0 {
		if n := literals(line, maxQuoted-col); n > 0 {
			o.Buf = append(o.Buf, line[:n]...)
			col += n
			line = line[n:]
		} else if col+len("=XX") <= maxQuoted {
			c := line[0]
			o.Buf = append(o.Buf, '=', upperHex[c>>4], upperHex[c&15])
			col += len("=XX")
			line = line[1:]
		} else {
			o.Buf = append(o.Buf, "=\r\n"...)
			o.flushIfFull()
			col = 0
		}
	}
}

// literals is how many octets at the beginning of a line, or of the rest of one,
// stand for themselves, but not more than most. White space at the end of the
// line does not, for it gets lost on the way.
func literals(line []byte, most int) int {
	most = min(most, len(line))
	for i, c := range line[:most] {
		if (c < ' ' || c > '~' || c == '=') && c != '\t' || charset.IsSpace(c) && i == len(line)-1 {
			return i
		}
	}
	return most
}

// base64Line is how many octets make one line of 76 characters.
const base64Line = 57

// base64Len is how much n octets make.
func base64Len(n int) int {
	return base64.StdEncoding.EncodedLen(n) + max(n-1, 0)/base64Line*len("\r\n")
}

// base64 writes base64 (RFC 2045, 6.8), without a line end after the last line.
func (o *Writer) base64(content []byte, inLines bool) {
	if inLines {
		o.base64Text(content)
		return
	}
	for o.err == nil && len(content) > base64Line {
		o.Buf = base64.StdEncoding.AppendEncode(o.Buf, content[:base64Line])
		o.Buf = append(o.Buf, "\r\n"...)
		content = content[base64Line:]
		o.flushIfFull()
	}
	o.Buf = base64.StdEncoding.AppendEncode(o.Buf, content)
}

// base64Text encodes text with CRLF for its line ends, piece by piece.
func (o *Writer) base64Text(text []byte) {
	const piece = base64Line * 64
	crlf := []byte("\r\n")
	pending := make([]byte, 0, 2*piece+len(crlf))
	add := func(b []byte) {
		pending = append(pending, b...)
		if len(pending) > piece { // the last octets must wait: what follows joins their line
			o.base64(pending[:piece], false)
			o.Buf = append(o.Buf, "\r\n"...)
			pending = pending[:copy(pending, pending[piece:])]
		}
	}
	for line, ended := range Lines(text) {
		for len(line) > piece {
			add(line[:piece])
			line = line[piece:]
		}
		add(line)
		if ended {
			add(crlf)
		}
	}
	o.base64(pending, false)
}

// HasLongLine reports whether a line of text is longer than MaxLine.
func HasLongLine(text []byte) bool {
	for line := range Lines(text) {
		if len(line) > MaxLine {
			return true
		}
	}
	return false
}
