package smtp

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	sliceSize    = 64 << 10 // what the server must take within one CommandTimeout
	smallGroup   = 4 << 10  // what every system's buffers take at once
	smallMessage = 16 << 10 // what they take if nothing else is under way
	maxKeptGroup = 1 << 20  // buffers that have grown beyond are not kept
)

// A group is what is written in one go: commands, bodies, or both.
type group struct {
	bytes []byte
	ends  []end
	loose []loose
}

// An end is the place in a group behind which a message is complete.
type end struct {
	at   int
	last int // where its last bytes begin, if they are written apart from all else; 0: they are not
	job  *job

	quiet   bool  // nothing is to be answered before the end
	arrived int64 // how often something had been read when it was queued
}

// cut returns where a slice from one place to another has to end, so that what comes before
// the last bytes, these bytes, and what comes behind them are written one after the
// other. Only so is it known whether an answer came before the message was written. A
// line end before the last bytes may be among them.
func (e end) cut(from, to int) int {
	if e.last-from > len(crlf) {
		return min(e.last, to)
	}
	return min(e.at, to)
}

// A writer is the writing half of a connection. What may have to wait for the server
// is written by a goroutine of its own, so that a server which answers the beginning
// of a group before it reads the rest cannot lock us up: replies are always being
// read.
type writer struct {
	link  *link
	limit time.Duration

	groups chan *group    // to the goroutine; nil if there is none
	busy   atomic.Int32   // groups that the goroutine has not written
	done   sync.WaitGroup // the goroutine
	spare  chan *group    // to be filled again
	piece  []byte         // of a big message, with its dots
	err    error          // why the writer has given up
}

func newWriter(l *link, limit time.Duration) *writer {
	return &writer{link: l, limit: limit, spare: make(chan *group, 2)}
}

// put writes a group, now or soon, and never waits for the server to read. alone says
// that all which was written before is answered: then a small group fits the
// system's buffers and needs no goroutine. At most depth groups may be waiting.
func (w *writer) put(g *group, alone bool, depth int) {
	if alone && len(g.bytes) <= smallGroup && len(g.loose) == 0 && w.busy.Load() == 0 {
		w.do(g)
		return
	}
	if w.groups == nil {
		groups := make(chan *group, depth)
		w.groups = groups
		w.done.Go(func() {
			for g := range groups {
				w.do(g)
				w.busy.Add(-1)
			}
		})
	}
	w.busy.Add(1)
	w.groups <- g
}

func (w *writer) do(g *group) {
	if w.err == nil {
		w.err = w.write(g)
	}
	if cap(g.bytes) > maxKeptGroup {
		return
	}
	clear(g.ends)
	clear(g.loose)
	g.bytes, g.ends, g.loose = g.bytes[:0], g.ends[:0], g.loose[:0]
	select {
	case w.spare <- g:
	default:
	}
}

// group returns an empty group.
func (w *writer) group() *group {
	select {
	case g := <-w.spare:
		return g
	default:
		return &group{}
	}
}

// stop waits until all is written or given up, and returns why it was given up.
func (w *writer) stop() error {
	if w.groups != nil {
		close(w.groups)
		w.done.Wait()
		w.groups = nil
	}
	return w.err
}

// write writes a group, and what is loose in it where it belongs.
func (w *writer) write(g *group) error {
	from := 0
	for _, b := range g.loose {
		if err := w.writeSlices(g, from, b.at); err != nil {
			return err
		}
		if err := w.writeLoose(b); err != nil {
			return err
		}
		from = b.at
	}
	return w.writeSlices(g, from, len(g.bytes))
}

// writeSlices writes a part of a group slice by slice. A server that does not take a
// slice in time has stopped reading.
func (w *writer) writeSlices(g *group, from, until int) error {
	ends := g.ends
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
		if err := w.link.write(g.bytes[from:to], from, ends[:here], w.limit); err != nil {
			return err
		}
		from = to
	}
	return nil
}
