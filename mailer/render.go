package mailer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strconv"
	"strings"
)

var _ io.WriterTo = (*EmailMessage)(nil)

// WriteTo writes the message as it is sent (RFC 5322 and MIME, lines end with
// CRLF). The same message gives the same bytes. It checks the message as
// Validate does, so that nothing is written of a bad one; any other error is w's.
//
// Without MessageID or Date the message has no such field: WithDefaults
// fills them in.
//
// Attachments are encoded as they are written and take no further memory, except for
// text in a charset other than UTF-8 and for attached messages that are not ASCII. A w
// that lends its buffer, as bytes.Buffer and bufio.Writer do (AvailableBuffer), spares a small message another one.
func (m *EmailMessage) WriteTo(w io.Writer) (int64, error) {
	room := m.room(w)
	d, err := m.compose(room.buffer())
	if err != nil {
		return 0, err
	}
	if d.raw != nil {
		return d.writeRaw(output{headerWriter: headerWriter{buf: d.header}, w: w, room: room})
	}
	root := m.tree(d)
	root.setBoundaries(freeBoundary(d.header, root))
	o := output{headerWriter: headerWriter{buf: d.header}, w: w, room: room}
	o.buf = append(o.buf, "MIME-Version: 1.0\r\n"...)
	o.part(root)
	if root.encoding == base64Encoding {
		o.buf = append(o.buf, "\r\n"...)
	}
	o.flush()
	return o.n, o.err
}

// EstimateSize returns about how many octets WriteTo writes: enough for most messages,
// and never more than twice as many, but for small ones.
func (m *EmailMessage) EstimateSize() int {
	const header = 1 << 10
	n := header + m.headerSize() + rawSize(m.Raw) + encodedSize(len(m.Body))
	for _, a := range m.Alternatives {
		n += header/2 + encodedSize(len(a.Content))
	}
	for _, a := range m.Attachments {
		n += header/2 + base64Len(len(a.Content)+len(a.Content)/lineEnds)
	}
	return n
}

// headerSize is about how many octets the header fields make that an author can make long.
// The addresses of a raw message are those of its envelope alone.
func (m *EmailMessage) headerSize() int {
	if len(m.Raw) > 0 {
		return 0
	}
	n := textSize(m.Subject)
	for _, list := range [...][]string{m.To, m.Cc, m.ReplyTo} {
		for _, addr := range list {
			n += textSize(addr) + len(",\r\n ")
		}
	}
	for name, value := range m.Headers {
		n += len(name) + textSize(value) + len(": \r\n ")
	}
	return n
}

// textSize is about how many octets a text makes in a header.
func textSize(s string) int {
	if isASCII(s) {
		return len(s)
	}
	return 2 * len(s)
}

// rawSize is how many bytes a raw message makes: as many as it has, and what the line ends lack
// that are a CR or an LF alone, unless its body has to be encoded anew.
func rawSize(raw []byte) int {
	const some = 64 << 10 // of few lines nobody cares how they end
	n := len(raw)
	if n < some {
		return n + n/lineEnds
	}
	whole := bytes.Count(raw, []byte("\r\n"))
	bare := bytes.Count(raw, []byte("\n")) + bytes.Count(raw, []byte("\r")) - 2*whole
	if hasLongLine(raw) {
		n += 2 * countEncoded(raw)
		n += n / lineEnds
		n += n / maxQuoted * len("=\r\n")
	}
	return n + bare
}

// countEncoded counts what does not stand for itself in quoted-printable.
func countEncoded(b []byte) int {
	n := 0
	for _, c := range b {
		if c > '~' || c == '=' {
			n++
		}
	}
	return n
}

// lineEnds is how many octets of a text there are to one that is added when its lines get
// their CRLF, or fewer.
const lineEnds = 32

// encodedSize is about how many octets a text of n makes. Short ones are most often plain.
func encodedSize(n int) int {
	if n < flushAt {
		return n + n/8
	}
	return base64Len(n + n/lineEnds)
}

// room is for the message in one piece, or for a piece of a big one.
func (m *EmailMessage) room(w io.Writer) room {
	r := room{size: min(m.EstimateSize(), flushAt+flushAt/4)}
	r.lender, _ = w.(lender)
	return r
}

// part writes a part with its header.
func (o *output) part(p *part) {
	o.contentType(p.contentType())
	if p.parts == nil {
		o.leaf(p)
		return
	}
	for _, child := range p.parts {
		o.buf = append(o.buf, "\r\n--"...)
		o.buf = append(o.buf, p.boundary...)
		o.buf = append(o.buf, "\r\n"...)
		o.part(child)
	}
	o.buf = append(o.buf, "\r\n--"...)
	o.buf = append(o.buf, p.boundary...)
	o.buf = append(o.buf, "--\r\n"...)
}

// contentType is the type as the header shows it.
func (p *part) contentType() mediaType {
	switch {
	case p.boundary != "":
		return p.media.with("boundary", p.boundary)
	case !isASCII(p.filename) && p.media.param("name") == "":
		// Programs that do not know RFC 2231 look here. A plain filename
		// beside the encoded one would be the one that others show.
		return p.media.with("name", asciiFilename(p.filename))
	}
	return p.media
}

// asciiFilename has an underscore for every other character.
func asciiFilename(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '_'
		}
		return r
	}, name)
}

func (o *output) leaf(p *part) {
	o.buf = append(o.buf, "Content-Transfer-Encoding: "...)
	o.buf = append(o.buf, p.encoding...)
	o.buf = append(o.buf, "\r\n"...)
	if p.disposition != "" {
		o.begin("Content-Disposition", "")
		o.put(" ", p.disposition)
		if p.filename != "" {
			o.param("filename", p.filename)
		}
		o.end()
	}
	if p.contentID != "" {
		o.begin("Content-ID", "")
		o.put(" ", "<"+p.contentID+">")
		o.end()
	}
	o.buf = append(o.buf, "\r\n"...)
	switch p.encoding {
	case sevenBit:
		o.plain(p.content, p.inLines)
	case quotedPrintable:
		o.quoted(p.content, p.inLines)
	case base64Encoding:
		o.base64(p.content, p.inLines)
	}
}

// freeBoundary finds a text that no line of the message holds. It is made of the
// header, and so of the Message-ID: the same message has the same boundaries. The
// _ cannot follow a = in quoted-printable nor stand in base64 (RFC 2045, 6.7), so
// only what is not encoded has to be searched.
func freeBoundary(header []byte, root *part) string {
	if root.parts == nil {
		return ""
	}
	sum := sha256.Sum256(header)
	for {
		free := "=_" + hex.EncodeToString(sum[:12])
		if !root.holds([]byte(free)) {
			return free
		}
		binary.LittleEndian.PutUint64(sum[:], binary.LittleEndian.Uint64(sum[:])+1)
	}
}

// holds says whether s is in a content that is written as it is.
func (p *part) holds(s []byte) bool {
	if p.parts == nil {
		return p.encoding == sevenBit && bytes.Contains(p.content, s)
	}
	for _, child := range p.parts {
		if child.holds(s) {
			return true
		}
	}
	return false
}

// setBoundaries gives p and the multiparts in it boundaries that begin with free.
func (p *part) setBoundaries(free string) {
	level := 0
	var set func(p *part)
	set = func(p *part) {
		if p.parts == nil {
			return
		}
		p.boundary = free + "." + strconv.Itoa(level)
		level++
		for _, child := range p.parts {
			set(child)
		}
	}
	set(p)
}
