package smtpd

import (
	"bufio"
	"bytes"
	"sync/atomic"
)

// budget is how many bytes all messages together may have that are being received.
type budget struct {
	most int64
	held atomic.Int64
}

// take reports whether there were n more.
func (b *budget) take(n int64) bool {
	if b.held.Add(n) <= b.most {
		return true
	}
	b.held.Add(-n)
	return false
}

// block is what a message takes of the budget at once.
const block = 64 << 10

// body gathers a message as it comes. What cannot be kept is read on to its end, so that the client gets to know why.
type body struct {
	limit  int
	budget *budget

	buf   []byte
	size  int   // of all that came
	taken int64 // of the budget
	fault reply // why the message is refused, or ""

	last byte // of what came
	ends bool // the last line has ended, with CRLF
}

// begin makes it ready for a message.
func (b *body) begin() {
	b.end()
	b.buf, b.size, b.fault, b.last, b.ends = b.buf[:0], 0, "", '\n', true
}

// end lets go of a message, and of what came of one that cannot be kept, while the rest still comes: others have room for it then. The
// buffer of a small one is kept for the next.
func (b *body) end() {
	if cap(b.buf) > block {
		b.buf = nil
	}
	b.budget.held.Add(-b.taken)
	b.taken = 0
}

// add takes the next bytes of the message.
func (b *body) add(p []byte) {
	if len(p) == 0 {
		return
	}
	b.size += len(p)
	if hasBareEnd(b.last, p) {
		b.fault = replyBareEnd
	}
	if b.fault == "" && b.size > b.limit {
		b.fault = replyTooBig
	}
	for b.fault == "" && int64(b.size) > b.taken {
		if b.budget.take(block) {
			b.taken += block
		} else {
			b.fault = replyTooMuch
		}
	}
	if b.fault == "" {
		b.buf = append(b.buf, p...)
	} else {
		b.end()
	}
	b.ends = bytes.HasSuffix(p, []byte("\r\n")) || string(p) == "\n" && b.last == '\r'
	b.last = p[len(p)-1]
}

// hasBareEnd reports whether p, which comes behind the byte last, has an LF without a CR before it, or anything but an LF behind a CR. A
// CR at its end is left to what follows.
func hasBareEnd(last byte, p []byte) bool {
	if last == '\r' {
		if p[0] != '\n' {
			return true
		}
		p = p[1:]
	}
	for {
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			return bytes.IndexByte(p, '\n') >= 0
		}
		if bytes.IndexByte(p[:i], '\n') >= 0 {
			return true
		}
		if i+1 == len(p) {
			return false
		}
		if p[i+1] != '\n' {
			return true
		}
		p = p[i+2:]
	}
}

// dotted reads a message up to the line with nothing but a dot, and takes the dot off each line that has one more (RFC 5321, 4.5.2). Only a
// CRLF ends the line before the dot and the dot's own. An error is one of the connection.
func (b *body) dotted(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull { //nolint:errorlint // ReadSlice does not wrap it
			return err
		}
		if b.ends && line[0] == '.' {
			if string(line) == ".\r\n" {
				return nil
			}
			line = line[1:]
		}
		b.add(line)
	}
}

// chunk reads the n bytes of a chunk (RFC 3030).
func (b *body) chunk(r *bufio.Reader, n uint64) error {
	for n > 0 {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		p, _ := r.Peek(int(min(n, uint64(r.Buffered())))) //nolint:gosec // no more than the buffer has
		b.add(p)
		_, _ = r.Discard(len(p))
		n -= uint64(len(p))
	}
	return nil
}

// finish says that nothing more comes.
func (b *body) finish() {
	if b.last == '\r' {
		b.fault = replyBareEnd
	}
}
