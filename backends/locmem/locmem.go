// Package locmem is a backend that keeps mail in memory, for tests: a program sends
// to it as to any other backend, and the test looks at the Outbox.
//
// Each message is really rendered, so that what would be refused in production (a
// newline in a header, say) is refused in the test. A message without recipients is
// not in the Outbox, because no other backend would have sent it. Each message is there at once, whatever its
// options say of times; the package tasks/queuetest has a queue in memory in which it waits.
package locmem

import (
	"bytes"
	"context"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Backend. The zero value is usable.
type Config struct {
	Outbox   *Outbox         // takes the messages; backends may share it. A new one if nil
	Defaults mailer.Defaults // what a message may leave out
}

// Backend puts messages into its Outbox. Unlike other backends it may be used by
// several goroutines.
type Backend struct {
	cfg  Config
	open atomic.Bool
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
)

// New returns a backend. The error is always nil.
func New(cfg Config) (*Backend, error) {
	if cfg.Outbox == nil {
		cfg.Outbox = new(Outbox)
	}
	return &Backend{cfg: cfg}, nil
}

// Outbox returns where the messages are.
func (b *Backend) Outbox() *Outbox { return b.cfg.Outbox }

// Open opens nothing, but keeps account of it.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	return b.open.CompareAndSwap(false, true), nil
}

// Close leaves the Outbox as it is and never fails.
func (b *Backend) Close() error {
	b.open.Store(false)
	return nil
}

// SendMessages puts each message into the Outbox.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch is SendMessages with each message reported when it is in the Outbox.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, func(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
		var raw bytes.Buffer
		if _, err := m.WriteTo(&raw); err != nil {
			return mailer.Result{Err: err}
		}
		b.cfg.Outbox.add(Mail{Message: cloneMessage(m), Envelope: to, Raw: raw.Bytes(), Options: batch.Options})
		return mailer.Result{}
	})
}
