package main

import (
	"io"
	"sync/atomic"
)

// A file is checked whole before its first line is queued. What is checked is kept as it goes into the queue, as long as it
// is not too much, so that it need not be read, checked and encoded again. Beyond that the file is read twice.

// maxSpooled is how many bytes are kept, at most.
const maxSpooled = 64 << 20

// spool keeps the first chunks of a file, as they are checked.
type spool struct {
	most   int // bytes
	chunks []chunk
	size   int
	lines  int         // number of the last line that is kept
	full   atomic.Bool // nothing is kept any more
}

func (s *spool) isFull() bool { return s.full.Load() }

// add keeps the next chunk.
func (s *spool) add(c chunk) {
	c.size = lineCost * len(c.lines)
	for _, p := range c.prepared {
		c.size += p.messages.Size()
	}
	if len(c.lines) == 0 || s.isFull() {
		return
	}
	if c.prepared == nil || s.size+c.size > s.most {
		s.full.Store(true)
		return
	}
	s.size += c.size
	s.chunks, s.lines = append(s.chunks, c), c.lines[len(c.lines)-1].n
}

// lineCost is about what is kept of a line beside its message.
const lineCost = 200

// before returns the chunks that are kept, and then those of the rest of the file.
func (s *spool) before(rest *chunker) (next func() (chunk, error)) {
	rest.skip, rest.index = s.lines, len(s.chunks)
	n := 0
	return func() (chunk, error) {
		if n == len(s.chunks) {
			if s.isFull() {
				return rest.next()
			}
			return chunk{index: n}, io.EOF
		}
		c := s.chunks[n]
		s.chunks[n] = chunk{}
		c.index = n
		n++
		return c, nil
	}
}
