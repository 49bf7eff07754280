package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lastWords is how long a server that we can no longer write to may take to tell
// us why.
const lastWords = 2 * time.Second

const crlf = "\r\n"

// ErrStopped is why nothing was written or read after Halt.
var ErrStopped = errors.New("stopped")

// A Link is the connection itself. It puts a time limit on every read and write, lets a
// context end both, and counts the points of no return that are in doubt.
//
// It is an io.Reader for what parses replies, and the one place that sets deadlines: they
// depend on what is in doubt, so that nothing else may touch them.
type Link struct {
	conn net.Conn // what is spoken over: TLS, or the same as raw
	raw  *steady  // the transport below TLS

	limit   time.Duration // how long the awaited reply may take
	until   time.Time     // when it must have come
	written atomic.Int64  // bytes that the system has taken
	arrived atomic.Int64  // how often something was read

	mu      sync.Mutex    // guards the following and the fields of every Point, and is held to set deadlines
	ended   *sync.Cond    // something has been written, or given up
	doubt   int           // points in doubt
	expiry  time.Time     // not zero if halted: until when to read if nothing is in doubt
	patient time.Duration // how long what is being written may stand still; 0: its deadline stands
	before  int64         // what the server had taken when the deadline was set
}

// A steady is the transport as a Link writes to it, below TLS: a write goes on beyond its deadline as long as the server
// takes something, however slow it reads. TLS could not go on with a record that was written in part.
type steady struct {
	net.Conn
	link   *Link
	socket syscall.RawConn // nil if there is none to ask
}

func newSteady(c net.Conn, l *Link) *steady {
	s := &steady{Conn: c, link: l}
	if socket, ok := c.(syscall.Conn); ok {
		s.socket, _ = socket.SyscallConn() // without it less is known
	}
	return s
}

func (c *steady) Write(p []byte) (n int, err error) {
	for {
		var more int
		more, err = c.Conn.Write(p[n:])
		n += more
		c.link.written.Add(int64(more))
		if err == nil || !IsTimeout(err) || !c.link.goOn() {
			return n, err
		}
	}
}

// taken is how many bytes the server has taken, the measure of progress. Where the system does not say what it keeps
// for the server, these bytes count as taken: a few megabytes at most.
func (l *Link) taken() int64 {
	written := l.written.Load()
	if l.raw.socket == nil {
		return written
	}
	return written - unsent(l.raw.socket)
}

// goOn gives a write as much time again if the server has taken something. It is false if it is not to go on.
func (l *Link) goOn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.taken()
	if !l.expiry.IsZero() || l.patient == 0 || now == l.before {
		return false
	}
	l.before = now
	_ = l.raw.SetWriteDeadline(time.Now().Add(l.patient))
	return true
}

// A Point is a point of no return: the place in what is written behind which a message is
// complete, so that the server may accept it without our knowing. Whoever asks for a message
// to be written owns its Point; the zero value has not been passed.
//
//	      what is written, and where the Point stands
//	... the body ... | last line end and dot | the next envelope
//	                 ^                       ^
//	   passed, when these are handed over    written, when the system has taken them
//
// Between passed and the server's answer the message is in doubt. passed comes before the
// write and not after it: once the system has the last byte, the server may have it too.
// A small message is handed over as a whole, so that it counts as written when it is passed.
// A big one takes time: its last bytes are written on their own, so that an answer which
// comes while the body is still on its way is known to be early.
type Point struct {
	passed  bool // guarded by Link.mu
	written bool // guarded by Link.mu
}

// An end is the place in a Buffer behind which a message is complete.
type end struct {
	at    int
	last  int // where its last bytes begin, if they are written apart from all else; 0: they are not
	point *Point

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

// NewLink returns the link over a connection that nothing was said on.
func NewLink(c net.Conn) *Link {
	l := &Link{}
	l.raw = newSteady(c, l)
	l.conn = l.raw
	l.ended = sync.NewCond(&l.mu)
	return l
}

// Encrypt goes on over TLS. What the server has sent before must have been read.
func (l *Link) Encrypt(ctx context.Context, t *tls.Config) (tls.ConnectionState, error) {
	encrypted := tls.Client(l.raw, t)
	_ = l.raw.SetDeadline(time.Time{})
	if err := encrypted.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	l.conn = encrypted
	return encrypted.ConnectionState(), nil
}

// IsEncrypted reports whether Encrypt has succeeded.
func (l *Link) IsEncrypted() bool { return l.conn != net.Conn(l.raw) }

// RemoteAddr is the server's address.
func (l *Link) RemoteAddr() net.Addr { return l.raw.RemoteAddr() }

// Expect starts the time limit of the next reply.
func (l *Link) Expect(limit time.Duration) {
	l.limit, l.until = limit, time.Now().Add(limit)
}

// Limit is how long the awaited reply may take.
func (l *Link) Limit() time.Duration { return l.limit }

// Read waits until the time of the awaited reply is up, and begins anew if the server
// has taken bytes meanwhile: a big body may take longer than any reply.
func (l *Link) Read(p []byte) (int, error) {
	for {
		taken := l.taken()
		l.armRead()
		n, err := l.conn.Read(p)
		if n > 0 {
			l.arrived.Add(1)
		}
		if n > 0 || !IsTimeout(err) || l.Halted() || l.taken() == taken {
			return n, err
		}
		l.Expect(l.limit)
	}
}

// armRead sets the deadline of a read. While a point is in doubt nothing shortens the wait
// for its answer: not a context that ends, and not a write that failed.
func (l *Link) armRead() {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.until
	if !l.expiry.IsZero() && l.doubt == 0 && l.expiry.Before(until) {
		until = l.expiry
	}
	_ = l.conn.SetReadDeadline(until)
}

// WriteLine writes all of p, of which the peer must take something within each limit. No message is complete
// with it.
func (l *Link) WriteLine(p []byte, limit time.Duration) error { return l.write(p, 0, nil, limit) }

// write writes all of p, of which the peer must take something within each limit. Where ends say so,
// messages are complete with it; p begins at the place from of what ends count in.
func (l *Link) write(p []byte, from int, ends []end, limit time.Duration) error {
	if !l.armWrite(ends, limit) {
		return ErrStopped
	}
	n, err := l.conn.Write(p)
	l.wrote(from+n, ends, err)
	return err
}

// armWrite passes the points of no return: when it returns true, the bytes that complete
// the messages of ends are about to leave this machine. They stay if the server has
// answered one of them already.
func (l *Link) armWrite(ends []end, limit time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.expiry.IsZero() || slices.ContainsFunc(ends, l.isAnswered) {
		return false
	}
	for _, e := range ends {
		e.point.passed, e.point.written = true, e.last == 0
	}
	l.doubt += len(ends)
	l.patient, l.before = limit, l.taken()
	_ = l.conn.SetWriteDeadline(time.Now().Add(limit))
	return true
}

// isAnswered reports whether something has come since the end was queued, though nothing
// was to come before it.
func (l *Link) isAnswered(e end) bool { return e.quiet && l.arrived.Load() != e.arrived }

// wrote notes that writing has come as far as n. If it failed, what ends behind n
// has not left this machine after all, and the server has time for its last words.
func (l *Link) wrote(n int, ends []end, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range ends {
		switch {
		case e.at <= n && e.last == 0:
			// It counts as written since before the write, so that it may be answered and the
			// point be in use for another message by now: it must not be touched.
		case e.at <= n:
			e.point.written = true
		case e.point.passed:
			e.point.passed = false
			l.doubt--
		}
	}
	l.ended.Broadcast()
	if err != nil && l.expiry.IsZero() {
		l.expiry = time.Now().Add(lastWords)
	}
	if err != nil && l.doubt == 0 {
		_ = l.conn.SetReadDeadline(l.expiry)
	}
}

// AwaitWritten is asked when the server has answered a message, and reports whether that was
// written to its last byte. If not, it never will be: the server has answered what we had not
// said. Where the last bytes are being written, the writer may not have noticed yet that they
// have arrived, but a server that has answered them takes no time to read them.
func (l *Link) AwaitWritten(p *Point) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.passed && !p.written {
		l.patient = 0
		_ = l.conn.SetWriteDeadline(time.Now().Add(lastWords))
	}
	for p.passed && !p.written {
		l.ended.Wait()
	}
	if !p.passed {
		l.expiry = longAgo()
	}
	return p.passed
}

// Answered notes that the server has decided on the complete message of p. Nothing is in
// doubt about it any more.
func (l *Link) Answered(p *Point) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*p = Point{}
	l.doubt--
}

// InDoubt reports whether the message of p is past the point of no return.
func (l *Link) InDoubt(p *Point) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.passed
}

// Halt lets nothing more be written. If nothing is in doubt, it interrupts what
// is being read or written.
func (l *Link) Halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expiry = longAgo()
	if l.doubt == 0 {
		_ = l.conn.SetDeadline(l.expiry)
	}
}

// Halted reports whether nothing more may be written.
func (l *Link) Halted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.expiry.IsZero()
}

// Finished reports whether the link was halted and nothing is in doubt.
func (l *Link) Finished() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expiry.Equal(longAgo()) && l.doubt == 0
}

// Resume ends a halt.
func (l *Link) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expiry = time.Time{}
}

// Cut ends the connection without another word, not even TLS's goodbye.
func (l *Link) Cut() { _ = l.raw.Close() }

func longAgo() time.Time { return time.Unix(1, 0) }

// IsTimeout reports whether err is that of a deadline.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
