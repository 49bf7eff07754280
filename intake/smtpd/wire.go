package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// wire is the connection of one client. Replies are gathered, and go out together before anything is waited for: so a client
// that pipelines gets its replies in one packet (RFC 2920, 3.2).
type wire struct {
	r       *bufio.Reader // of Read
	out     []byte        // replies that have not gone out
	timeout time.Duration // of each wait for the client
	until   time.Time     // when all waiting ends, if it is not zero

	mu     sync.Mutex // guards what follows, which end and cut need from outside
	conn   net.Conn
	idle   bool // we wait for something that may be cut off
	ending bool // end was called
	over   bool // cut was called
}

// readBuffer holds the longest line of AUTH.
const readBuffer = 16 << 10

func newWire(conn net.Conn, timeout time.Duration) *wire {
	w := &wire{conn: conn, timeout: timeout}
	w.r = bufio.NewReaderSize(w, readBuffer)
	return w
}

var (
	errEnding  = errors.New("smtpd: the server is being stopped")
	errBareEnd = errors.New("smtpd: a line does not end with CRLF")
	errTooLong = errors.New("smtpd: a line is too long")
)

// Read lets the replies go out and reads what comes from the client.
func (w *wire) Read(p []byte) (int, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	conn, err := w.await()
	if err != nil {
		return 0, err
	}
	n, err := conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && w.stopped() {
		err = errEnding
	}
	return n, err
}

// await sets the deadline of a Read.
func (w *wire) await() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stops() {
		return nil, errEnding
	}
	return w.conn, w.conn.SetReadDeadline(w.deadline())
}

func (w *wire) deadline() time.Time {
	by := time.Now().Add(w.timeout)
	if !w.until.IsZero() && w.until.Before(by) {
		return w.until
	}
	return by
}

// stops reports whether nothing is to be waited for any more. mu is held.
func (w *wire) stops() bool { return w.over || w.ending && w.idle }

func (w *wire) stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stops()
}

// isEnding reports whether end was called.
func (w *wire) isEnding() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ending
}

func (w *wire) setIdle(idle bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = idle
}

// end stops waiting for the next command, now and from now on. What is in hand goes on.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending = true; w.idle {
		_ = w.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// lastWords is how long a client has to take the last reply.
const lastWords = time.Second

// cut stops waiting for anything.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending, w.over = true, true
	_ = w.conn.SetReadDeadline(time.Unix(1, 0))
	_ = w.conn.SetWriteDeadline(time.Now().Add(lastWords))
}

// say adds a line to the replies.
func (w *wire) say(line string) { w.out = append(append(w.out, line...), '\r', '\n') }

// flush lets the replies go out.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	w.mu.Lock()
	conn, timeout := w.conn, w.timeout
	if w.over {
		timeout = lastWords
	}
	err := conn.SetWriteDeadline(time.Now().Add(timeout))
	w.mu.Unlock()
	if err == nil {
		_, err = conn.Write(w.out)
	}
	w.out = w.out[:0]
	return err
}

// line returns the next command line, without its end. idle says that nothing is in hand meanwhile.
func (w *wire) line(limit int, idle bool) (string, error) {
	if idle {
		w.setIdle(true)
		defer w.setIdle(false)
	}
	line, err := w.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", w.skip()
	}
	if err != nil {
		return "", err
	}
	if len(line) > limit {
		return "", errTooLong
	}
	line, found := bytes.CutSuffix(line, []byte("\r\n"))
	if !found || bytes.IndexByte(line, '\r') >= 0 {
		return "", errBareEnd
	}
	return string(line), nil
}

// skip reads the rest of a line that is too long.
func (w *wire) skip() error {
	for {
		if _, err := w.r.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			if err == nil {
				err = errTooLong
			}
			return err
		}
	}
}

// secure begins TLS.
func (w *wire) secure(ctx context.Context, config *tls.Config) error {
	conn, err := w.beginTLS(config)
	if err != nil {
		return err
	}
	err = conn.HandshakeContext(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle, w.conn = false, conn
	w.r.Reset(w)
	return err
}

func (w *wire) beginTLS(config *tls.Config) (*tls.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending {
		return nil, errEnding
	}
	w.idle = true
	return tls.Server(w.conn, config), w.conn.SetDeadline(w.deadline())
}

// close lets the last reply go out and closes the connection. What the client sends on is read for a moment: a connection that is closed
// with something unread is reset, and the reply with it.
func (w *wire) close() {
	said := w.flush() == nil
	w.mu.Lock()
	conn, over := w.conn, w.over
	w.mu.Unlock()
	if half, ok := conn.(interface{ CloseWrite() error }); ok && said && !over && half.CloseWrite() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(lastWords))
		_, _ = io.CopyN(io.Discard, conn, maxUnread)
	}
	_ = conn.Close()
}

// maxUnread is how much is read of what nobody looks at.
const maxUnread = 1 << 20

var _ io.Reader = (*wire)(nil)
