package smtp

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Backend delivers messages to an SMTP or LMTP server over one connection, which it
// keeps open between Open and Close. One goroutine at a time may use it.
type Backend struct {
	cfg     Config
	dialer  dialer
	via     func(ctx context.Context, connect func() error) error // nil: connections are opened at once
	session session                                               // the one that runs, or the last one, whose buffers are used again

	open     bool       // between Open and Close
	conn     *conn      // nil, or idle
	chunking bool       // asked for, and not found to be an empty promise
	free     []*message // whose buffers can be used again
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
	_ mailer.Connector   = (*Backend)(nil)
)

// New returns a Backend. It reads the files that cfg names and opens no connection.
func New(cfg Config) (*Backend, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	t, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	b := &Backend{cfg: cfg, chunking: cfg.Chunking == Auto}
	b.dialer = dialer{cfg: &b.cfg, tls: t}
	return b, nil
}

// Open connects, encrypts and logs in, if that is not done. A connection which has
// died since is replaced. The error is a SendError of class Unavailable.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	c, err := b.acquire(ctx)
	if err != nil {
		return false, err
	}
	b.release(c)
	opened = !b.open
	b.open = true
	return opened, nil
}

// AddHooks makes the backend tell h as well as those that it has. It must be called before
// the backend is used.
func (b *Backend) AddHooks(h *Hooks) { b.cfg.Hooks = b.cfg.Hooks.and(h) }

// ConnectVia implements mailer.Connector.
func (b *Backend) ConnectVia(via func(ctx context.Context, connect func() error) error) { b.via = via }

// Account implements mailer.Connector.
func (b *Backend) Account() string {
	if !b.cfg.login() {
		return ""
	}
	return b.cfg.Username + " at " + strings.Join(b.cfg.Addrs, " ")
}

// TokenSource returns where the backend has its tokens from, nil if it has none.
func (b *Backend) TokenSource() TokenSource { return b.cfg.TokenSource }

// Close says goodbye to the server and closes the connection. Nothing that the server
// answers to that is an error.
func (b *Backend) Close() error {
	b.open = false
	if c := b.conn; c != nil {
		b.conn = nil
		if c.resume() {
			c.quit(CloseDone)
		}
		c.close(CloseStale, nil)
	}
	return nil
}

// SendMessages implements mailer.Backend.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch implements mailer.BatchSender. When a connection breaks it goes on over a
// new one with all messages that cannot have been accepted, except for the one
// that seems to have broken it.
func (b *Backend) SendBatch(ctx context.Context, messages mailer.Batch) {
	batch := newBatch(ctx, messages, b.cfg.Defaults, b.cfg.Hooks, b.free)
	defer func() { b.free = batch.free }()
	defer batch.report() // also if a message cannot be rendered without a panic: the others are not sent twice
	for fruitless := 0; batch.peek() != nil; {
		batch.report()
		if ctx.Err() != nil {
			batch.failAll(givenUp(ctx, nil))
			break
		}
		c, err := b.acquire(ctx)
		if err != nil {
			batch.failAll(asSendError(err))
			break
		}
		if c.messages > 0 {
			b.cfg.Hooks.reused(ctx, c.about, time.Since(c.used))
		}
		settled, err := b.session.run(ctx, c, batch, b.chunking)
		if err == nil {
			b.release(c)
			fruitless = 0
			continue
		}
		b.chunking = b.chunking && !errors.Is(err, errNoChunks)
		if fruitless++; settled > 0 {
			fruitless = 0
		}
		if fruitless == maxFruitless {
			batch.failAll(givenUp(ctx, err))
		}
	}
	batch.report()
	if !b.open {
		_ = b.Close()
	}
}

// acquire returns a connection that is ready for MAIL: the open one if it is still
// good and has not carried enough, else a new one.
func (b *Backend) acquire(ctx context.Context) (*conn, error) {
	if c := b.conn; c != nil {
		b.conn = nil
		switch {
		case !c.resume():
			c.trace("*: ", "the connection has ended while idle")
			c.close(CloseStale, nil)
		case c.full():
			c.quit(CloseFull)
		default:
			return c, nil
		}
	}
	return b.connect(ctx)
}

// connect opens a connection, when whoever has asked for that lets it.
func (b *Backend) connect(ctx context.Context) (c *conn, err error) {
	if b.via == nil {
		return b.dialer.connect(ctx)
	}
	err = b.via(ctx, func() (err error) {
		c, err = b.dialer.connect(ctx)
		return err
	})
	if err != nil && c != nil {
		c.quit(CloseDone)
		c = nil
	}
	return c, err
}

// release keeps a connection that is in order until the next use.
func (b *Backend) release(c *conn) {
	c.idle()
	b.conn = c
}

// TrySender asks the server whether it takes mail from a sender, who is written as in
// EmailMessage.FromEmail: it sends MAIL and then RSET (RFC 5321, 4.1.1.2 and 4.1.1.5), so nothing is
// sent. Many servers want a login, and say so no earlier than there. What a server thinks of a
// recipient, or of the sender once there is a recipient, it does not tell. It connects if
// that is not done. The error is a SendError whose step is StepMail if the server refuses
// the sender, or an InvalidMessageError if there can be no such sender.
func (b *Backend) TrySender(ctx context.Context, from string) error {
	envelope, err := (&mailer.EmailMessage{FromEmail: from}).Envelope()
	if err != nil {
		return err
	}
	if !isPath(envelope.From) {
		return &mailer.InvalidMessageError{Field: "from_email", Reason: "the address does not fit in an SMTP command"}
	}
	c, err := b.acquire(ctx)
	if err != nil {
		return err
	}
	var refused *mailer.SendError
	err = c.within(ctx, func() (err error) {
		refused, err = c.trySender(envelope.From)
		return err
	})
	switch {
	case err != nil:
		reason := err
		if s := asSendError(err); s.Code == 0 {
			reason = s.Err
		}
		c.abort(reason, ctx.Err() != nil)
	case b.open:
		b.release(c)
	default:
		c.quit(CloseDone)
	}
	if refused != nil { // whatever became of the connection then
		return refused
	}
	return err
}

// trySender returns the server's refusal, or an error if the connection is of no more use.
func (c *conn) trySender(from string) (refused *mailer.SendError, err error) {
	line := "MAIL FROM:<" + from + ">"
	if !isASCII([]byte(from)) {
		if !c.ext.smtpUTF8 {
			return &mailer.SendError{
				Class: mailer.Permanent, Step: mailer.StepMail, Err: errors.New("the sender needs SMTPUTF8, which the server does not offer"),
			}, nil
		}
		line += " SMTPUTF8" // RFC 6531, 3.4
	}
	r, err := c.do(line)
	switch {
	case err != nil:
		return nil, unavailable(mailer.StepMail, err)
	case r.Code == 421: // it closes
		return nil, refusal(mailer.StepMail, r)
	case !r.Positive():
		refused = refusal(mailer.StepMail, r)
	}
	r, err = c.do("RSET")
	return refused, wantPositive(mailer.StepReset, r, err)
}
