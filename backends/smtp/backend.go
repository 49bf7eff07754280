package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// maxFruitless is how many connections in a row may break without the server having
// decided on a single message, before the rest of a batch is given up for now.
const maxFruitless = 3

// Backend delivers messages to an SMTP or LMTP server over one connection, which it
// keeps open between Open and Close. One goroutine at a time may use it.
type Backend struct {
	cfg  Config
	tls  *tls.Config
	fqdn *string // our name, once looked up; "" if there is none

	open     bool   // between Open and Close
	conn     *conn  // nil, or asleep
	chunking bool   // asked for, and not found to be an empty promise
	free     []*job // whose buffers can be used again
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
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
	return &Backend{cfg: cfg, tls: t, chunking: cfg.Chunking == Auto}, nil
}

// Open connects, encrypts and logs in, if that is not done. A connection which has
// died since is replaced. The error is a SendError of class Unavailable.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	c, err := b.awake(ctx)
	if err != nil {
		return false, err
	}
	b.keep(c)
	opened = !b.open
	b.open = true
	return opened, nil
}

// Close says goodbye to the server and closes the connection. Nothing that the server
// answers to that is an error.
func (b *Backend) Close() error {
	b.open = false
	if c := b.conn; c != nil {
		b.conn = nil
		if c.wake() {
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
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	q := &queue{batch: batch, defaults: b.cfg.Defaults, free: b.free}
	if h := b.cfg.Hooks; h.times() {
		q.settled = func(j *job, r mailer.Result) { h.settled(ctx, j.told(r)) }
	}
	defer func() { b.free = q.free }()
	defer q.tell() // also if a message cannot be rendered without a panic: the others are not sent twice
	for fruitless := 0; q.peek() != nil; {
		q.tell()
		if ctx.Err() != nil {
			q.failAll(givenUp(ctx, nil))
			break
		}
		c, err := b.awake(ctx)
		if err != nil {
			q.failAll(asSendError(err))
			break
		}
		if c.messages > 0 {
			b.cfg.Hooks.reused(ctx, c.about, time.Since(c.used))
		}
		settled, err := c.send(ctx, q, b.chunking)
		if err == nil {
			b.keep(c)
			fruitless = 0
			continue
		}
		b.chunking = b.chunking && !errors.Is(err, errNoChunks)
		if fruitless++; settled > 0 {
			fruitless = 0
		}
		if fruitless == maxFruitless {
			q.failAll(givenUp(ctx, err))
		}
	}
	q.tell()
	if !b.open {
		_ = b.Close()
	}
}

// awake returns a connection that is ready for MAIL: the open one if it is still
// good and has not carried enough, else a new one.
func (b *Backend) awake(ctx context.Context) (*conn, error) {
	if c := b.conn; c != nil {
		b.conn = nil
		switch {
		case !c.wake():
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

// keep puts a connection that is in order to sleep until the next use.
func (b *Backend) keep(c *conn) {
	c.sleep()
	b.conn = c
}

// givenUp is the error of messages that were not even begun when the last
// connection broke.
func givenUp(ctx context.Context, err error) *mailer.SendError {
	failure := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect}
	if cause := context.Cause(ctx); cause != nil {
		failure.Err = cause
		return failure
	}
	failure.Err = fmt.Errorf("%d connections in a row broke, the last one with: %w", maxFruitless, err)
	return failure
}

func asSendError(err error) *mailer.SendError {
	var s *mailer.SendError
	if errors.As(err, &s) {
		return s
	}
	return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: err}
}
