package transport

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"
)

const (
	sliceSize     = 64 << 10 // what is written at once
	smallBuffer   = 4 << 10  // what every system's buffers take at once
	maxKeptBuffer = 1 << 20  // buffers that have grown beyond are not kept
)

// A Writer is the writing half of a connection. What may have to wait for the server
// is written by a goroutine of its own, so that a server which answers the beginning
// of a Buffer before it reads the rest cannot lock us up: replies are always being
// read.
//
//	session:  Put ---- reads replies ---- Put ---- reads replies ---- Stop
//	           |                           |                           |
//	writer:    +-- write, slice by slice --+-- write ... --------------+
//
// The first Put that could block starts the goroutine; Stop waits for it. What was not
// written when the link halts never is.
type Writer struct {
	link  *Link
	limit time.Duration

	buffers chan *Buffer   // to the goroutine; nil if there is none
	busy    atomic.Int32   // buffers that the goroutine has not written
	done    sync.WaitGroup // the goroutine
	spare   chan *Buffer   // to be filled again
	piece   []byte         // of a big message, with its dots
	err     error          // why the writer has given up
}

// NewWriter returns a writer on l. The server must take something within each limit.
func NewWriter(l *Link, limit time.Duration) *Writer {
	return &Writer{link: l, limit: limit, spare: make(chan *Buffer, 2)}
}

// Buffer returns an empty buffer.
func (w *Writer) Buffer() *Buffer {
	select {
	case b := <-w.spare:
		return b
	default:
		return &Buffer{link: w.link}
	}
}

// Put writes a buffer, now or soon, and never waits for the server to read. alone: all that
// was written before has been answered, so that a small buffer fits the system's and needs
// no goroutine. At most depth buffers may be waiting; the first Put that needs the goroutine
// decides.
func (w *Writer) Put(b *Buffer, alone bool, depth int) {
	if alone && len(b.bytes) <= smallBuffer && len(b.big) == 0 && w.busy.Load() == 0 {
		w.do(b)
		return
	}
	if w.buffers == nil {
		buffers := make(chan *Buffer, depth)
		w.buffers = buffers
		w.done.Go(func() {
			for b := range buffers {
				w.do(b)
				w.busy.Add(-1)
			}
		})
	}
	w.busy.Add(1)
	w.buffers <- b
}

func (w *Writer) do(b *Buffer) {
	if w.err == nil {
		w.err = w.write(b)
	}
	w.Keep(b)
}

// Keep takes a buffer back that is not in use any more.
func (w *Writer) Keep(b *Buffer) {
	if cap(b.bytes) > maxKeptBuffer {
		return
	}
	b.reset()
	select {
	case w.spare <- b:
	default:
	}
}

// Stop waits until all is written or given up, and returns why it was given up.
func (w *Writer) Stop() error {
	if w.buffers != nil {
		close(w.buffers)
		w.done.Wait()
		w.buffers = nil
	}
	return w.err
}

// write writes a buffer, and the big bodies in it where they belong.
func (w *Writer) write(b *Buffer) error {
	from := 0
	for _, big := range b.big {
		if err := w.writeSlices(b, from, big.at); err != nil {
			return err
		}
		if err := w.writeBig(big); err != nil {
			return err
		}
		from = big.at
	}
	return w.writeSlices(b, from, len(b.bytes))
}

// writeSlices writes a part of a buffer slice by slice. A server that takes nothing of one for
// so long has stopped reading.
func (w *Writer) writeSlices(b *Buffer, from, until int) error {
	ends := b.ends
	for from < until {
		to := min(from+sliceSize, until)
		for len(ends) > 0 && ends[0].at <= from {
			ends = ends[1:]
		}
		if len(ends) > 0 && ends[0].last > 0 {
			to = ends[0].cut(from, to)
		}
		here := 0
		for here < len(ends) && ends[here].at <= to {
			here++
		}
		if err := w.link.write(b.bytes[from:to], from, ends[:here], w.limit); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// writeBig writes a big body in pieces of whole lines, with dots where they are needed.
func (w *Writer) writeBig(big bigBody) error {
	for rest := big.body; len(rest) > 0; {
		piece := rest[:min(sliceSize, len(rest))]
		if n := bytes.LastIndexByte(piece, '\n') + 1; n > 0 && len(piece) < len(rest) {
			piece = piece[:n]
		}
		rest = rest[len(piece):]
		if big.stuffed {
			w.piece = appendStuffed(w.piece[:0], piece)
			piece = w.piece
		}
		if err := w.link.write(piece, 0, nil, w.limit); err != nil {
			return err
		}
	}
	return nil
}
