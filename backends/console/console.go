// Package console is a backend that writes mail to a terminal, or to any io.Writer,
// for a developer to read. Each message is followed by a line of 79 dashes, as
// Django's console backend prints it. Bcc is not shown, because it is in no message.
// It is not meant for production.
package console

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/internal/transcript"
	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Backend. The zero value is usable.
type Config struct {
	// Writer takes each message in one Write: os.Stdout if nil. It is never closed.
	// Backends that share a Writer other than an *os.File must share it as one
	// *Output, for not every Writer can be written to by two goroutines.
	Writer io.Writer

	Defaults mailer.Defaults // what a message may leave out
}

// Backend writes messages to a Writer. Unlike other backends it may be used by
// several goroutines.
type Backend struct {
	out  *Output
	cfg  Config
	open atomic.Bool
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
)

// New returns a backend. The error is always nil.
func New(cfg Config) (*Backend, error) {
	b := &Backend{cfg: cfg}
	switch w := cfg.Writer.(type) {
	case nil:
		b.out = NewOutput(os.Stdout)
	case *Output:
		b.out = w
	default:
		b.out = NewOutput(w)
	}
	return b, nil
}

// Open opens nothing, but keeps account of it.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	return b.open.CompareAndSwap(false, true), nil
}

// Close leaves the Writer open and never fails.
func (b *Backend) Close() error {
	b.open.Store(false)
	return nil
}

// SendMessages writes the messages. A message that cannot be rendered is left out.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch is SendMessages with each message reported when it has been written.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, b.write)
}

func (b *Backend) write(m *mailer.EmailMessage, _ mailer.Envelope) mailer.Result {
	entry, err := transcript.Entry(m)
	if err != nil {
		return mailer.Result{Err: err}
	}
	if _, err := b.out.Write(entry); err != nil {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepBody, Err: fmt.Errorf("console: %w", err)}}
	}
	return mailer.Result{}
}
