package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

const (
	// quitTimeout is how long the goodbye may take: nothing depends on it.
	quitTimeout = 2 * time.Second
	// fresh is how long a connection may have been idle and still be taken for alive
	// without asking.
	fresh = time.Second
)

var (
	crlf     = []byte("\r\n")
	crlfDot  = []byte("\r\n.")
	finalDot = []byte(".\r\n")

	errOutOfStep   = errors.New("the server's replies do not fit our commands")
	errNotOneLine  = errors.New("a command that is not one line")
	errUnsolicited = errors.New("the server speaks out of turn")
)

// A conn is a connection to one server. After connect it has been greeted and is
// ready for MAIL.
type conn struct {
	cfg    *Config
	addr   string // as in Addrs
	host   string // of addr
	link   *link
	in     replyReader
	out    []byte // a command under construction
	ext    extensions
	writer *writer

	session session // the one that runs, or the last one

	about    *Conn // what hooks are told
	ended    bool  // they were told of the end
	opened   time.Time
	messages int   // transactions begun
	settled  int   // messages decided on by the server
	octets   int64 // of messages sent
	reused   bool  // has been idle between two sessions
	unclean  bool  // a transaction was begun and not completed: RSET before MAIL
	chunks   bool  // the server has shown that it knows BDAT

	rest  chan bool // while idle: tells whether the connection is still good
	slept time.Time // when it became idle
	used  time.Time // when it was last done with messages
}

func (c *conn) trace(prefix, line string) {
	if c.cfg.Trace != nil {
		c.cfg.Trace(prefix + printable(line))
	}
}

// attach makes the conn speak over what its link now is.
func (c *conn) attach() {
	c.in.r = bufio.NewReaderSize(c.link, maxReplyLine)
	if c.cfg.Trace != nil {
		c.in.trace = c.trace
	}
}

// startTLS encrypts the link.
func (c *conn) startTLS(ctx context.Context, t *tls.Config) error {
	if t.ServerName == "" {
		t = t.Clone()
		t.ServerName = c.host
	}
	encrypted := tls.Client(c.link.raw, t)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CommandTimeout)
	defer cancel()
	_ = c.link.raw.SetDeadline(time.Time{})
	if err := encrypted.HandshakeContext(ctx); err != nil {
		return err
	}
	c.link.Conn = encrypted
	c.attach()
	state := encrypted.ConnectionState()
	c.about.TLS, c.about.CipherSuite = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	c.trace("*: ", c.about.TLS+" with "+c.about.CipherSuite)
	return nil
}

// do sends one command and reads its reply.
func (c *conn) do(line string) (*reply, error) {
	c.trace("C: ", line)
	return c.roundTrip(line)
}

func (c *conn) roundTrip(line string) (*reply, error) {
	if strings.ContainsAny(line, "\r\n\x00") {
		return nil, errNotOneLine
	}
	if c.in.r.Buffered() > 0 {
		return nil, errUnsolicited
	}
	c.out = append(append(c.out[:0], line...), crlf...)
	if err := c.link.write(c.out, 0, nil, c.cfg.CommandTimeout); err != nil {
		return nil, c.lost(err)
	}
	return c.reply(c.cfg.CommandTimeout)
}

// reply reads a reply that nothing else is waiting for.
func (c *conn) reply(limit time.Duration) (*reply, error) {
	c.link.expect(limit)
	r, err := c.in.read()
	if err != nil {
		return nil, c.lost(err)
	}
	return r, nil
}

// lost puts into words why reading or writing failed.
func (c *conn) lost(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	case isTimeout(err):
		return fmt.Errorf("no answer within %v: %w", c.link.limit, err)
	}
	return err
}

// within runs f and lets the end of ctx end it. After that the connection is of no
// more use.
func (c *conn) within(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, c.link.halt)
	err := f()
	if stop() {
		return err
	}
	failure := &mailer.SendError{Step: mailer.StepConnect}
	errors.As(err, &failure)
	return unavailable(failure.Step, context.Cause(ctx))
}

// full says whether the connection has done its share.
func (c *conn) full() bool {
	return c.cfg.MaxMessages > 0 && c.messages >= c.cfg.MaxMessages ||
		c.cfg.MaxBytes > 0 && c.octets >= c.cfg.MaxBytes ||
		c.cfg.MaxAge > 0 && time.Since(c.opened) >= c.cfg.MaxAge
}

// isFresh says whether the connection was used just now.
func (c *conn) isFresh() bool { return c.reused && time.Since(c.slept) < fresh }

// sleep watches over the connection while nobody uses it, so that it is not used
// again when the server has said something (421), has closed it, or when it has been
// idle for too long. wake must follow.
func (c *conn) sleep() {
	c.reused, c.slept = true, time.Now()
	c.rest = make(chan bool, 1)
	c.link.expect(c.cfg.IdleTimeout)
	go func() {
		_, err := c.in.r.Peek(1)
		if c.link.halted() {
			c.rest <- isTimeout(err) // interrupted by wake, or not
			return
		}
		if isTimeout(err) {
			c.quit(CloseIdle)
		}
		c.close(CloseStale, err)
		c.rest <- false
	}()
}

// wake ends the sleep and says whether the connection is still good.
func (c *conn) wake() bool {
	c.link.halt()
	good := <-c.rest
	c.rest = nil
	c.link.resume()
	return good
}

// quit says goodbye and closes the connection. Whatever the server answers, all
// that mattered has been answered before.
func (c *conn) quit(reason CloseReason) {
	c.trace("C: ", "QUIT")
	limit := min(quitTimeout, c.cfg.CommandTimeout)
	if err := c.link.write([]byte("QUIT\r\n"), 0, nil, limit); err == nil {
		c.link.expect(limit)
		_, _ = c.in.read()
	}
	c.trace("*: ", "closed")
	c.close(reason, nil)
}

// close ends the connection without another word.
func (c *conn) close(reason CloseReason, err error) {
	c.link.cut()
	if c.ended {
		return
	}
	c.ended = true
	c.cfg.Hooks.closed(Closed{
		Conn: c.about, Reason: reason, Err: err,
		Lived: time.Since(c.opened), Messages: c.messages, Octets: c.octets,
	})
}

// unavailable is the error of a failure before any message was spoken of.
func unavailable(step mailer.Step, err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: err}
}
