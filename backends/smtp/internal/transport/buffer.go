package transport

import "bytes"

// BigBody is the size from which on a message is written from where it was rendered:
// there is no second copy of it, and its memory must not be used again. Smaller ones
// are copied into the Buffer, and so need not be left alone until they are written.
const BigBody = 256 << 10

// smallMessage is what every system's buffers take if nothing else is under way.
const smallMessage = 16 << 10

var (
	crlfDot  = []byte("\r\n.")
	finalDot = []byte(".\r\n")
)

// A Buffer is what is written in one go: commands, bodies, or both.
//
//	bytes:  MAIL, RCPT, DATA | last CRLF . CRLF | MAIL, RCPT, DATA
//	                         ^                  ^
//	                  a big body,             an end
//	             written from its place
type Buffer struct {
	link  *Link
	bytes []byte
	big   []bigBody
	ends  []end
}

// A bigBody is written in the middle of a Buffer without being a part of it: a big message
// but for its last line end, which is in the Buffer, so that the end of the message is too.
type bigBody struct {
	at      int // in the buffer, before the byte there
	body    []byte
	stuffed bool // it needs the dots of RFC 5321, 4.5.2
}

// IsEmpty reports whether there is nothing to be written.
func (b *Buffer) IsEmpty() bool { return len(b.bytes) == 0 }

// AddLine adds a command.
func (b *Buffer) AddLine(line []byte) { b.bytes = append(append(b.bytes, line...), crlf...) }

// AddBody adds the body of DATA, with the dots that it needs, but not the final one.
func (b *Buffer) AddBody(body []byte) { b.add(body, true) }

// AddDot adds a final dot with which no message is complete: nobody is to get it.
func (b *Buffer) AddDot() { b.bytes = append(b.bytes, finalDot...) }

// AddEnd adds the final dot of a body of so many bytes, with p behind it. All commands
// before must have been answered: a reply that comes before the dot is written can then only
// be meant for half of this message.
func (b *Buffer) AddEnd(p *Point, size int) {
	last := 0
	if size > smallMessage {
		last = len(b.bytes)
	}
	b.AddDot()
	b.ends = append(b.ends, end{at: len(b.bytes), last: last, point: p, quiet: true, arrived: b.link.arrived.Load()})
}

// AddChunk adds what follows BDAT: a part of a message, as it is.
func (b *Buffer) AddChunk(part []byte) { b.add(part, false) }

// EndChunk puts p behind the last chunk, which has so many bytes. Other messages may be
// waiting for their replies, so that an early reply may be theirs and stops nothing.
func (b *Buffer) EndChunk(p *Point, size int) {
	at, last := len(b.bytes), 0
	if size > smallMessage {
		last = at - len(crlf)
	}
	b.ends = append(b.ends, end{at: at, last: last, point: p})
}

func (b *Buffer) add(body []byte, stuffed bool) {
	if len(body) > BigBody {
		last := len(body) - len(crlf)
		b.big = append(b.big, bigBody{at: len(b.bytes), body: body[:last], stuffed: stuffed})
		body, stuffed = body[last:], false
	}
	if stuffed {
		b.bytes = appendStuffed(b.bytes, body)
		return
	}
	b.bytes = append(b.bytes, body...)
}

func (b *Buffer) reset() {
	clear(b.ends)
	clear(b.big)
	b.bytes, b.ends, b.big = b.bytes[:0], b.ends[:0], b.big[:0]
}

// appendStuffed appends body with a dot before each line that begins with one (RFC
// 5321, 4.5.2).
func appendStuffed(dst, body []byte) []byte {
	if len(body) > 0 && body[0] == '.' {
		dst = append(dst, '.')
	}
	for {
		i := bytes.Index(body, crlfDot)
		if i < 0 {
			return append(dst, body...)
		}
		i += len(crlfDot)
		dst = append(append(dst, body[:i]...), '.')
		body = body[i:]
	}
}
