// Package outgoing passes messages through a function on their way to a backend, right before the turn of each: a rule of whoever
// operates the sending side, which no producer can get round.
package outgoing

import (
	"context"

	"github.com/mailpouch/mailpouch/mailer"
)

// Func says what is sent for a message: the message itself, or another one in its place. It must not change m, nor what m
// points to. It is called from one goroutine at a time for each backend, for messages that have a recipient.
//
// The same message has to give the same result at every try: it depends on m alone, not on the clock or on chance. One that is
// tried again for some of its recipients says so by its Envelope, which has only these.
//
// An error is the message's result, and nothing of the message is sent. If it is returned together with a message, that is sent,
// and err is a *mailer.SendError that has in Refused an entry for each recipient of m who does not get it.
type Func func(ctx context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error)

// Wrap returns a backend that sends through b what change returns. It is a mailer.BatchSender and a mailer.Connector if b is.
//
// What b reports of recipients is put in terms of those that the message was given with: see Batch. A panic of change is that
// message's error, of the type *PanicError.
func Wrap(b mailer.Backend, change Func) mailer.Backend {
	w := wrapped{b, change}
	_, batches := b.(mailer.BatchSender)
	via, connects := b.(mailer.Connector)
	switch {
	case batches && connects:
		return struct {
			batched
			mailer.Connector
		}{batched{w}, via}
	case batches:
		return batched{w}
	case connects:
		return struct {
			wrapped
			mailer.Connector
		}{w, via}
	}
	return w
}

// Unwrap returns the backend that all wrappers of this package are around, for what only that one has.
func Unwrap(b mailer.Backend) mailer.Backend {
	for {
		w, ok := b.(interface{ inner() mailer.Backend })
		if !ok {
			return b
		}
		b = w.inner()
	}
}

// wrapped is a backend with a Func before it.
type wrapped struct {
	mailer.Backend
	change Func
}

func (w wrapped) inner() mailer.Backend { return w.Backend }

// SendMessages implements mailer.Backend.
func (w wrapped) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, batched{w}, messages)
}

// batched is a wrapped one whose backend is a mailer.BatchSender.
type batched struct{ wrapped }

// SendBatch implements mailer.BatchSender.
func (w batched) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.SendBatch(ctx, w.Backend, Batch(b, func(_ int, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
		return w.change(ctx, m)
	}, nil))
}
