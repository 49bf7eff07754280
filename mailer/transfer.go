package mailer

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"iter"
)

// transferEncoding is a Content-Transfer-Encoding (RFC 2045, 6). 8bit is never
// used: not every server on a message's way takes it.
type transferEncoding string

const (
	sevenBit        transferEncoding = "7bit"
	quotedPrintable transferEncoding = "quoted-printable"
	base64Encoding  transferEncoding = "base64"
)

// chooseEncoding returns the shortest encoding that content can have. Content in
// lines is text, whose line ends become CRLF. That of other content must come
// out as they went in, and mail systems are free with line ends, so they
// have to be encoded.
func chooseEncoding(content []byte, inLines bool) transferEncoding {
	if isSevenBit(content, inLines) {
		return sevenBit
	}
	const sample = 64 << 10 // a long content is judged by its beginning
	content = content[:min(len(content), sample)]
	if quotedLen(content, inLines) <= base64Len(len(content)) {
		return quotedPrintable
	}
	return base64Encoding
}

func isSevenBit(content []byte, inLines bool) bool {
	if !isASCIIBytes(content) || bytes.IndexByte(content, 0) >= 0 {
		return false
	}
	if !inLines {
		return len(content) <= maxLine && !bytes.ContainsAny(content, "\r\n")
	}
	for line := range lines(content) {
		if len(line) > maxLine {
			return false
		}
	}
	return true
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

// lines yields the lines of a text without their ends, which may be LF, CR or
// CRLF, and says whether the line had one: only the last may have none.
func lines(text []byte) iter.Seq2[[]byte, bool] {
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

// output writes a message to w by way of buf.
type output struct {
	headerWriter
	w    io.Writer
	room room
	n    int64
	err  error // of w; once it is set, nothing more is written
}

// room is where output gets its buffers.
type room struct {
	size   int
	lender lender // nil, or who is asked first
}

// lender is a writer that lends what is free of its own buffer, to be appended to and written at once.
type lender interface{ AvailableBuffer() []byte }

// buffer returns an empty buffer of the size.
func (r *room) buffer() []byte {
	if r.lender != nil {
		if lent := r.lender.AvailableBuffer(); cap(lent) >= r.size {
			return lent
		}
		r.lender = nil
	}
	return make([]byte, 0, r.size)
}

// flushAt is when the buffer is written out. Nothing that is appended at once is
// much longer.
const flushAt = 32 << 10

func (o *output) flushIfFull() {
	if len(o.buf) < flushAt {
		return
	}
	o.flush()
	if o.room.lender != nil {
		o.buf = o.room.buffer() // what was lent first has become a part of the message
	}
}

func (o *output) flush() {
	if o.err == nil {
		var n int
		n, o.err = o.w.Write(o.buf)
		o.n += int64(n)
	}
	o.buf = o.buf[:0]
}

// plain writes text as it is, but for its line ends.
func (o *output) plain(text []byte, inLines bool) {
	if !inLines {
		o.buf = append(o.buf, text...)
		return
	}
	for line, ended := range lines(text) {
		o.buf = append(o.buf, line...)
		if ended {
			o.buf = append(o.buf, "\r\n"...)
		}
		o.flushIfFull()
	}
}

// quoted writes quoted-printable (RFC 2045, 6.7).
func (o *output) quoted(content []byte, inLines bool) {
	if !inLines {
		o.quotedLine(content)
		return
	}
	for line, ended := range lines(content) {
		o.quotedLine(line)
		if ended {
			o.buf = append(o.buf, "\r\n"...)
		}
		o.flushIfFull()
	}
}

// maxQuoted is the length of an encoded line without the = that may end it.
const maxQuoted = 75

func (o *output) quotedLine(line []byte) {
	col := 0
	for len(line) > 0 {
		if n := literals(line, maxQuoted-col); n > 0 {
			o.buf = append(o.buf, line[:n]...)
			col += n
			line = line[n:]
		} else if col+len("=XX") <= maxQuoted {
			c := line[0]
			o.buf = append(o.buf, '=', upperHex[c>>4], upperHex[c&15])
			col += len("=XX")
			line = line[1:]
		} else {
			o.buf = append(o.buf, "=\r\n"...)
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
		if (c < ' ' || c > '~' || c == '=') && c != '\t' || isSpace(c) && i == len(line)-1 {
			return i
		}
	}
	return most
}

// quotedLen is how much quoted writes.
func quotedLen(content []byte, inLines bool) int {
	if !inLines {
		return quotedLineLen(content)
	}
	n := 0
	for line, ended := range lines(content) {
		n += quotedLineLen(line)
		if ended {
			n += len("\r\n")
		}
	}
	return n
}

func quotedLineLen(line []byte) int {
	n, col := 0, 0
	for len(line) > 0 {
		run := literals(line, len(line))
		line = line[run:]
		n += run
		col += run
		if col > maxQuoted {
			breaks := (col - 1) / maxQuoted
			n += breaks * len("=\r\n")
			col -= breaks * maxQuoted
		}
		if len(line) > 0 {
			if col += len("=XX"); col > maxQuoted {
				n += len("=\r\n")
				col = len("=XX")
			}
			n += len("=XX")
			line = line[1:]
		}
	}
	return n
}

// base64Line is how many octets make one line of 76 characters.
const base64Line = 57

// base64Len is how much n octets make.
func base64Len(n int) int {
	return base64.StdEncoding.EncodedLen(n) + max(n-1, 0)/base64Line*len("\r\n")
}

// base64 writes base64 (RFC 2045, 6.8), without a line end after the last line.
func (o *output) base64(content []byte, inLines bool) {
	if inLines {
		o.base64Text(content)
		return
	}
	for o.err == nil && len(content) > base64Line {
		o.buf = base64.StdEncoding.AppendEncode(o.buf, content[:base64Line])
		o.buf = append(o.buf, "\r\n"...)
		content = content[base64Line:]
		o.flushIfFull()
	}
	o.buf = base64.StdEncoding.AppendEncode(o.buf, content)
}

// base64Text encodes text with CRLF for its line ends, piece by piece.
func (o *output) base64Text(text []byte) {
	const piece = base64Line * 64
	crlf := []byte("\r\n")
	pending := make([]byte, 0, 2*piece+len(crlf))
	add := func(b []byte) {
		pending = append(pending, b...)
		if len(pending) > piece { // the last octets must wait: what follows joins their line
			o.base64(pending[:piece], false)
			o.buf = append(o.buf, "\r\n"...)
			pending = pending[:copy(pending, pending[piece:])]
		}
	}
	for line, ended := range lines(text) {
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
