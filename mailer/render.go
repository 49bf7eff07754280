package mailer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

var _ io.WriterTo = (*EmailMessage)(nil)

// WriteTo writes the message as it is sent: RFC 5322 and MIME, with CRLF at the end of each line.
// It returns the number of bytes written. The same message gives the same bytes. WriteTo checks
// the message first, as Validate does, and writes nothing of a bad one; any other error is w's.
//
// Without MessageID or Date the message has no such field: WithDefaults fills them in.
//
// Attachments are encoded piece by piece and take no further memory, except for text in a charset
// other than UTF-8 and for attached messages that are not ASCII. A small message needs no buffer
// if w lends its own (AvailableBuffer), as bytes.Buffer and bufio.Writer do.
func (m *EmailMessage) WriteTo(w io.Writer) (int64, error) { return m.write(w, false) }

// WriteText is WriteTo for people who read the message as it stands, on a terminal or in a file: texts
// in UTF-8 are not encoded (Content-Transfer-Encoding: 8bit), as Django writes them. Encoded stays what
// has control characters or lines of more than 998 bytes, a text in another charset, and the header.
// It is the same message, and a valid one, but not the bytes that are sent: not every server on a
// message's way takes 8bit.
func (m *EmailMessage) WriteText(w io.Writer) (int64, error) { return m.write(w, true) }

func (m *EmailMessage) write(w io.Writer, asText bool) (int64, error) {
	buffers := mimewriter.NewBuffers(w, m.EstimateSize())
	d, err := m.compose(append(buffers.Next(), m.signature...))
	if err != nil {
		return 0, err
	}
	if d.raw != nil {
		return d.raw.writeTo(w, buffers)
	}
	root := m.tree(d)
	if asText && m.signature == nil {
		root.asText()
	}
	root.setBoundaries(freeBoundary(d.header[len(m.signature):], root))
	o := mimewriter.NewWriter(w, buffers, d.header)
	o.Buf = append(o.Buf, "MIME-Version: 1.0\r\n"...)
	writePart(&o, root)
	if root.encoding == mimewriter.Base64 {
		o.Buf = append(o.Buf, "\r\n"...)
	}
	return o.Flush()
}

// writePart writes a part with its header.
func writePart(o *mimewriter.Writer, p *part) {
	o.ContentType(p.contentType())
	if p.parts == nil {
		writeLeaf(o, p)
		return
	}
	for _, child := range p.parts {
		o.Buf = append(o.Buf, "\r\n--"...)
		o.Buf = append(o.Buf, p.boundary...)
		o.Buf = append(o.Buf, "\r\n"...)
		writePart(o, child)
	}
	o.Buf = append(o.Buf, "\r\n--"...)
	o.Buf = append(o.Buf, p.boundary...)
	o.Buf = append(o.Buf, "--\r\n"...)
}

// contentType is the type as the header shows it.
func (p *part) contentType() mimewriter.MediaType {
	switch {
	case p.boundary != "":
		return p.media.With("boundary", p.boundary)
	case !charset.IsASCII(p.filename) && p.media.Param("name") == "":
		// Programs that do not know RFC 2231 look here. A plain filename
		// beside the encoded one would be the one that others show.
		return p.media.With("name", asciiFilename(p.filename))
	}
	return p.media
}

// asciiFilename replaces every character that is not ASCII by an underscore.
func asciiFilename(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '_'
		}
		return r
	}, name)
}

func writeLeaf(o *mimewriter.Writer, p *part) {
	o.Buf = append(o.Buf, "Content-Transfer-Encoding: "...)
	o.Buf = append(o.Buf, p.encoding...)
	o.Buf = append(o.Buf, "\r\n"...)
	if p.disposition != "" {
		o.Begin("Content-Disposition", "")
		o.Put(" ", p.disposition)
		if p.filename != "" {
			o.Param("filename", p.filename)
		}
		o.End()
	}
	if p.contentID != "" {
		o.Begin("Content-ID", "")
		o.Put(" ", "<"+p.contentID+">")
		o.End()
	}
	o.Buf = append(o.Buf, "\r\n"...)
	o.Content(p.content, p.inLines, p.encoding)
}

// freeBoundary finds a text that no line of the message contains. It is a hash of the header, and
// so of the Message-ID: the same message has the same boundaries. It begins with "=_", which is
// never in quoted-printable or base64 (RFC 2045, 6.7), so only what is not encoded is searched.
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

// holds reports whether s is in a content that is written as it is.
func (p *part) holds(s []byte) bool {
	if p.parts == nil {
		return (p.encoding == mimewriter.SevenBit || p.encoding == mimewriter.EightBit) && bytes.Contains(p.content, s)
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
