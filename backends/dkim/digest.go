package dkim

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// digest takes a message as it is written, piece by piece. It keeps the header, and of the body only the hash.
type digest struct {
	header  []byte // without the empty line behind it
	inBody  bool
	body    bodyDigest
	scratch []byte // lent to who writes
}

// scratchSize is more than a message is written in at once.
const scratchSize = 48 << 10

func newDigest() *digest {
	return &digest{scratch: make([]byte, 0, scratchSize), body: bodyDigest{hash: sha256.New(), out: make([]byte, 0, outSize+outSize/2)}}
}

func (d *digest) reset() {
	const most = 1 << 20 // of a header to be kept for the next one
	if cap(d.header) > most {
		d.header = nil
	}
	d.header, d.inBody = d.header[:0], false
	d.body.reset()
}

// AvailableBuffer lends a buffer, so that the message needs none.
func (d *digest) AvailableBuffer() []byte { return d.scratch }

// Write takes the next piece of the message.
func (d *digest) Write(p []byte) (int, error) {
	n := len(p)
	if !d.inBody {
		from := max(0, len(d.header)-len("\r\n\r"))
		d.header = append(d.header, p...)
		i := bytes.Index(d.header[from:], []byte("\r\n\r\n"))
		if i < 0 {
			return n, nil
		}
		end := from + i + len("\r\n")
		p = d.header[end+len("\r\n"):]
		d.header, d.inBody = d.header[:end], true
	}
	d.body.write(p)
	return n, nil
}

// bodyDigest hashes a body in the form that "relaxed" has (RFC 6376, 3.4.4): no white space at the end of a line, one blank for
// any other, no empty lines at the end, and a CRLF at the end of what is not empty.
type bodyDigest struct {
	hash  hash.Hash
	out   []byte // for hash
	ends  int    // line ends that are not written yet: nothing may follow them
	blank bool   // there is white space before what comes next in the line
	any   bool   // something was written
}

// outSize is when out goes to hash.
const outSize = 4 << 10

func (b *bodyDigest) reset() {
	b.hash.Reset()
	b.out, b.ends, b.blank, b.any = b.out[:0], 0, false, false
}

// write takes the next piece, which may begin and end anywhere. Every CR in it belongs to a CRLF.
func (b *bodyDigest) write(p []byte) {
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		b.text(bytes.TrimSuffix(line, []byte("\r")))
		if ended {
			b.blank = false
			b.ends++
		}
		p = rest
	}
}

// text takes a piece of a line.
func (b *bodyDigest) text(line []byte) {
	next := func(line []byte) int { return bytes.IndexByte(line, ' ') }
	if bytes.IndexByte(line, '\t') >= 0 {
		next = func(line []byte) int { return bytes.IndexAny(line, " \t") }
	}
	for len(line) > 0 {
		n := next(line)
		if n < 0 {
			n = len(line)
		}
		if n > 0 {
			b.put(line[:n])
		}
		if n < len(line) {
			b.blank = true
			n++
		}
		line = line[n:]
	}
}

// put writes a word, after what is due before it.
func (b *bodyDigest) put(word []byte) {
	for ; b.ends > 0; b.ends-- {
		b.out = append(b.out, "\r\n"...)
		b.flush(outSize)
	}
	if b.blank {
		b.out, b.blank = append(b.out, ' '), false
	}
	b.any = true
	if len(word) >= outSize {
		b.flush(0)
		b.hash.Write(word)
		return
	}
	b.out = append(b.out, word...)
	b.flush(outSize)
}

// flush hands out over if it has so many bytes.
func (b *bodyDigest) flush(most int) {
	if len(b.out) >= most {
		b.hash.Write(b.out)
		b.out = b.out[:0]
	}
}

func (b *bodyDigest) sum() []byte {
	if b.any {
		b.out = append(b.out, "\r\n"...)
	}
	b.flush(0)
	return b.hash.Sum(nil)
}
