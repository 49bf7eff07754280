package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/internal/replyrule"
	"github.com/mailpouch/mailpouch/mailer"
)

const (
	// quitTimeout is how long the goodbye may take: nothing depends on it.
	quitTimeout = 2 * time.Second
	// fresh is how long a connection may have been idle and still be taken for alive
	// without asking.
	fresh = time.Second
)

const crlf = "\r\n"

var (
	errNotOneLine = errors.New("a command that is not one line")
	errNoToken    = errors.New("the source has returned none")
)

// A conn is a connection to one server. After connect it has been greeted and is
// ready for MAIL.
type conn struct {
	cfg  *Config
	addr string // as in Addrs
	host string // of addr
	ext  extensions
	out  []byte // a command under construction

	link    *transport.Link
	replies transport.ReplyReader
	writer  *transport.Writer

	about    *Conn // what hooks are told
	ended    bool  // they were told of the end
	opened   time.Time
	messages int   // transactions begun
	settled  int   // messages decided on by the server
	octets   int64 // of messages sent
	reused   bool  // has been idle between two sessions
	unclean  bool  // a transaction was begun and not completed: RSET before MAIL
	chunks   bool  // the server has shown that it knows BDAT

	good      chan bool // while idle: whether the connection can be used again
	idleSince time.Time
	used      time.Time // when it was last done with messages
}

func (c *conn) trace(prefix, line string) {
	if c.cfg.Trace != nil {
		c.cfg.Trace(prefix + transport.Printable(line))
	}
}

// secret returns what to log in with: the password, or a token.
func (c *conn) secret(ctx context.Context) (string, error) {
	source := c.cfg.TokenSource
	if source == nil {
		return c.cfg.Password, nil
	}
	token, err := source.Token(ctx)
	if err == nil && token == "" {
		err = errNoToken
	}
	if err != nil {
		return "", fmt.Errorf("no token to log in with: %w", err)
	}
	return token, nil
}

// again returns the secret to try once more with after one was refused, "" for none. err is why there is none
// any more.
func (c *conn) again(ctx context.Context, refused string) (secret string, err error) {
	if c.cfg.TokenSource == nil {
		return "", nil
	}
	c.cfg.TokenSource.Refused(refused)
	if secret, err = c.secret(ctx); secret == refused {
		return "", nil
	}
	return secret, err
}

// listen reads replies from what the link now is, from the next byte on.
func (c *conn) listen() {
	c.replies.Reset(c.link)
	if c.cfg.Trace != nil {
		c.replies.Trace = c.trace
	}
}

// encrypt goes on over TLS.
func (c *conn) encrypt(ctx context.Context, t *tls.Config) error {
	t = t.Clone()
	if t.ServerName == "" {
		t.ServerName = c.host
	}
	agreed := false // on version and cipher suite: the server has shown its certificate
	t.VerifyConnection = func(tls.ConnectionState) error {
		agreed = true
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CommandTimeout)
	defer cancel()
	state, err := c.link.Encrypt(ctx, t)
	switch {
	case err != nil && !agreed:
		return &noAgreementError{err}
	case err != nil:
		return err
	}
	c.listen()
	c.about.TLS, c.about.CipherSuite = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	c.trace("*: ", c.about.TLS+" with "+c.about.CipherSuite)
	return nil
}

// noAgreementError is why a handshake failed before the server has shown its certificate.
type noAgreementError struct{ error }

func (e *noAgreementError) Unwrap() error { return e.error }

// do sends one command and reads its reply.
func (c *conn) do(line string) (*transport.Reply, error) {
	c.trace("C: ", line)
	return c.roundTrip(line)
}

func (c *conn) roundTrip(line string) (*transport.Reply, error) {
	if strings.ContainsAny(line, "\r\n\x00") {
		return nil, errNotOneLine
	}
	if c.replies.Buffered() > 0 {
		return nil, errUnsolicited
	}
	c.out = append(append(c.out[:0], line...), crlf...)
	if err := c.link.WriteLine(c.out, c.cfg.CommandTimeout); err != nil {
		return nil, c.lost(err)
	}
	return c.reply(c.cfg.CommandTimeout)
}

// reply reads a reply that nothing else is waiting for.
func (c *conn) reply(limit time.Duration) (*transport.Reply, error) {
	c.link.Expect(limit)
	r, err := c.replies.Read()
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
	case transport.IsTimeout(err):
		return fmt.Errorf("no answer within %v: %w", c.link.Limit(), err)
	}
	return err
}

// within runs f and lets the end of ctx end it. After that the connection is of no
// more use.
func (c *conn) within(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, c.link.Halt)
	err := f()
	if stop() {
		return err
	}
	failure := &mailer.SendError{Step: mailer.StepConnect}
	errors.As(err, &failure)
	return unavailable(failure.Step, context.Cause(ctx))
}

// isTemporary reports whether Config.TemporaryReplies has the reply.
func (c *conn) isTemporary(code int, enhanced, text string) bool {
	return slices.ContainsFunc(c.cfg.temporary, func(r replyrule.Rule) bool { return r.Matches(code, enhanced, text) })
}

// full reports whether the connection has done its share.
func (c *conn) full() bool {
	return c.cfg.MaxMessages > 0 && c.messages >= c.cfg.MaxMessages ||
		c.cfg.MaxBytes > 0 && c.octets >= c.cfg.MaxBytes ||
		c.cfg.MaxAge > 0 && time.Since(c.opened) >= c.cfg.MaxAge
}

// isFresh reports whether the connection was used just now.
func (c *conn) isFresh() bool { return c.reused && time.Since(c.idleSince) < fresh }

// idle watches over the connection while nobody uses it, so that it is not used
// again when the server has said something (421), has closed it, or when it has been
// idle for too long. resume must follow.
func (c *conn) idle() {
	c.reused, c.idleSince = true, time.Now()
	c.good = make(chan bool, 1)
	c.link.Expect(c.cfg.IdleTimeout)
	go func() {
		err := c.replies.Wait()
		if c.link.Halted() {
			c.good <- transport.IsTimeout(err) // interrupted by resume, or not
			return
		}
		if transport.IsTimeout(err) {
			c.quit(CloseIdle)
		}
		c.close(CloseStale, err)
		c.good <- false
	}()
}

// resume ends the watch and reports whether the connection is still good.
func (c *conn) resume() bool {
	c.link.Halt()
	good := <-c.good
	c.good = nil
	c.link.Resume()
	return good
}

// quit says goodbye and closes the connection. Whatever the server answers, all
// that mattered has been answered before.
func (c *conn) quit(reason CloseReason) {
	c.trace("C: ", "QUIT")
	limit := min(quitTimeout, c.cfg.CommandTimeout)
	if err := c.link.WriteLine([]byte("QUIT\r\n"), limit); err == nil {
		c.link.Expect(limit)
		_, _ = c.replies.Read()
	}
	c.trace("*: ", "closed")
	c.close(reason, nil)
}

// abort ends the connection because of err. interrupted: the context has ended.
func (c *conn) abort(err error, interrupted bool) { c.close(closeReason(err, interrupted), err) }

// close ends the connection without another word.
func (c *conn) close(reason CloseReason, err error) {
	c.link.Cut()
	if c.ended {
		return
	}
	c.ended = true
	c.cfg.Hooks.closed(Closed{
		Conn: c.about, Reason: reason, Err: err,
		Lived: time.Since(c.opened), Messages: c.messages, Octets: c.octets,
	})
}

// closeReason tells the causes apart for which a session ends. interrupted: its
// context has ended.
func closeReason(err error, interrupted bool) CloseReason {
	var refused *mailer.SendError
	switch {
	case errors.As(err, &refused) && refused.Code == 421:
		return Close421
	case errors.Is(err, transport.ErrStopped), errors.Is(err, errTakenBack), interrupted && transport.IsTimeout(err):
		return CloseStopped
	case transport.IsTimeout(err):
		return CloseTimeout
	case refused != nil, isOutOfStep(err):
		return CloseProtocol
	}
	return CloseLost
}

// isOutOfStep reports whether err is about what the server said, and not about the connection.
func isOutOfStep(err error) bool {
	var garbled transport.SyntaxError
	return errors.As(err, &garbled) ||
		errors.Is(err, errOutOfStep) || errors.Is(err, errUnsolicited) || errors.Is(err, errNoChunks)
}
