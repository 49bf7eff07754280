package smtp

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lastWords is how long a server that we can no longer write to may take to tell
// us why.
const lastWords = 2 * time.Second

var errHalted = errors.New("stopped")

// A link is the connection below the protocol. It puts a time limit on every read
// and write, lets a context end both, and counts the messages that are in doubt.
//
// A message is in doubt from the point of no return, where the octets that complete
// it are handed to the system, until the server has answered it: it may be accepted
// without our knowing. As long as there is one, no context interrupts the wait
// for its reply; only the reply's own time limit does.
type link struct {
	net.Conn          // what is spoken over: TLS, or the same as raw
	raw      net.Conn // the transport below TLS

	limit   time.Duration // how long the awaited reply may take
	until   time.Time     // when it must have come
	written atomic.Int64  // octets written, the measure of progress
	arrived atomic.Int64  // how often something was read

	mu    sync.Mutex // guards the following, and is held to set deadlines
	ended *sync.Cond // something has been written, or given up
	doubt int        // messages in doubt
	last  time.Time  // not zero if halted: until when to read if nothing is in doubt
}

func newLink(c net.Conn) *link {
	l := &link{Conn: c, raw: c}
	l.ended = sync.NewCond(&l.mu)
	return l
}

// expect starts the time limit of the next reply.
func (l *link) expect(limit time.Duration) {
	l.limit, l.until = limit, time.Now().Add(limit)
}

// Read waits until the time of the awaited reply is up, and begins anew if
// octets were written meanwhile: a big body may take longer than any reply.
func (l *link) Read(p []byte) (int, error) {
	for {
		written := l.written.Load()
		l.armRead()
		n, err := l.Conn.Read(p)
		if n > 0 {
			l.arrived.Add(1)
		}
		if n > 0 || !isTimeout(err) || l.halted() || l.written.Load() == written {
			return n, err
		}
		l.expect(l.limit)
	}
}

func (l *link) armRead() {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.until
	if !l.last.IsZero() && l.doubt == 0 && l.last.Before(until) {
		until = l.last
	}
	_ = l.SetReadDeadline(until)
}

// write writes all of p, which the peer must take within limit. Where ends say so,
// messages are complete with it; p begins at the place from of what ends count in.
func (l *link) write(p []byte, from int, ends []end, limit time.Duration) error {
	if !l.armWrite(ends, limit) {
		return errHalted
	}
	n, err := l.Write(p)
	l.written.Add(int64(n))
	l.wrote(from+n, ends, err)
	return err
}

// armWrite is the point of no return: when it returns true, the octets that complete
// the messages of ends are about to leave this machine. They stay if the server has
// answered one of them already.
func (l *link) armWrite(ends []end, limit time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() || slices.ContainsFunc(ends, l.answered) {
		return false
	}
	for _, e := range ends {
		e.job.gone, e.job.wrote = true, e.last == 0
	}
	l.doubt += len(ends)
	_ = l.SetWriteDeadline(time.Now().Add(limit))
	return true
}

// answered reports whether something has come since the message was queued, though nothing
// was to come before its end.
func (l *link) answered(e end) bool { return e.quiet && l.arrived.Load() != e.arrived }

// wrote notes that writing has come as far as n. If it failed, what ends behind n
// has not left this machine after all, and the server has time for its last words.
func (l *link) wrote(n int, ends []end, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range ends {
		switch {
		case e.at <= n && e.last == 0:
			// It is complete since before it was written, and may be answered and the job another's.
		case e.at <= n:
			e.job.wrote = true
		case e.job.gone:
			e.job.gone = false
			l.doubt--
		}
	}
	l.ended.Broadcast()
	if err != nil && l.last.IsZero() {
		l.last = time.Now().Add(lastWords)
	}
	if err != nil && l.doubt == 0 {
		_ = l.SetReadDeadline(l.last)
	}
}

// complete reports whether the job's message has been written to its last byte. If not,
// it never will be: the server has answered what we had not said. Where the last bytes
// are being written, the writer may not have noticed yet that they have arrived, but a
// server that has answered them takes no time to read them.
func (l *link) complete(j *job) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.gone && !j.wrote {
		_ = l.SetWriteDeadline(time.Now().Add(lastWords))
	}
	for j.gone && !j.wrote {
		l.ended.Wait()
	}
	if !j.gone {
		l.last = longAgo()
	}
	return j.gone
}

// settle notes that the server has answered the job's complete message.
func (l *link) settle(j *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j.gone, j.wrote = false, false
	l.doubt--
}

// inDoubt says whether the job's message is past the point of no return.
func (l *link) inDoubt(j *job) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return j.gone
}

// halt lets nothing more be written. If no message is in doubt, it interrupts what
// is being read or written.
func (l *link) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = longAgo()
	if l.doubt == 0 {
		_ = l.SetDeadline(l.last)
	}
}

func (l *link) halted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.last.IsZero()
}

// finished says whether the link was halted and every message's fate is known.
func (l *link) finished() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Equal(longAgo()) && l.doubt == 0
}

// resume ends a halt.
func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Time{}
}

// cut ends the connection without another word, not even TLS's goodbye.
func (l *link) cut() { _ = l.raw.Close() }

func longAgo() time.Time { return time.Unix(1, 0) }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
