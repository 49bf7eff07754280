// Package dummy is a backend that throws mail away and counts it.
//
// It refuses what every backend refuses (a newline in a header, an address that is
// none), so that a program tested with it does not fail on that in production. It
// does not render the messages. It is not meant for production.
package dummy

import (
	"context"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Backend. The zero value is usable.
type Config struct {
	Defaults mailer.Defaults // what a message may leave out
}

// Backend does nothing with a message but check and count it. Unlike other backends
// it may be used by several goroutines.
type Backend struct {
	cfg  Config
	open atomic.Bool
	sent atomic.Int64
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
)

// New returns a backend. The error is always nil.
func New(cfg Config) (*Backend, error) { return &Backend{cfg: cfg}, nil }

// Open opens nothing, but keeps account of it.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	return b.open.CompareAndSwap(false, true), nil
}

// Close never fails.
func (b *Backend) Close() error {
	b.open.Store(false)
	return nil
}

// SendMessages accepts every message that is fit to be sent and has a recipient.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch is SendMessages with each message reported when it is counted.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, b.count)
}

func (b *Backend) count(*mailer.EmailMessage, mailer.Envelope) mailer.Result {
	b.sent.Add(1)
	return mailer.Result{}
}

// Sent returns how many messages were accepted so far.
func (b *Backend) Sent() int { return int(b.sent.Load()) }
