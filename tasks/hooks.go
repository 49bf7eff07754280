package tasks

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// BeforeSend is a hook of a worker of your own, asked about each message right before that is sent, whoever has handed it over. What
// has happened to a message afterwards hears Observer.Outcome.
type BeforeSend interface {
	// BeforeSend returns what is sent: m.Message as it is, or a changed copy of it. For other recipients
	// there are its Redirect and WithRecipients. The message itself, and what it points to, must not be changed.
	//
	// The same message has to give the same copy at every try, so that a receiver can recognise a second one: it depends on the
	// message and its task, not on the clock, on chance or on what may change meanwhile. A message that is tried again for some of
	// its recipients says so by its Envelope, which has only these.
	//
	// An error alone means that nothing of the message is sent. Stop makes one that ends it: it is a dead letter with that reason. Any
	// other, and a panic, costs the message a try, and it comes again later. At the end of ctx the worker stops, and the
	// message goes back untried. Together with a message the error is a *mailer.SendError, with an entry in Refused for each
	// recipient who does not get it: those become a dead letter of their own, or are tried again, by the class of the entry.
	//
	// What the relay says of recipients that were changed holds for those they are in the place of: if one of these has
	// the message, so have they. One who was only left out counts as done.
	//
	// It is called from several goroutines, and the connection waits: it must be quick. It is not asked for a message that has
	// expired, was cancelled or is paused, and once for each try of all others.
	BeforeSend(ctx context.Context, m Outgoing) (*mailer.EmailMessage, error)
}

// BeforeSendFunc is a function as a BeforeSend.
type BeforeSendFunc func(ctx context.Context, m Outgoing) (*mailer.EmailMessage, error)

// BeforeSend implements the interface of that name.
func (f BeforeSendFunc) BeforeSend(ctx context.Context, m Outgoing) (*mailer.EmailMessage, error) {
	return f(ctx, m)
}

// Outgoing is a message that is about to be sent.
type Outgoing struct {
	Message *mailer.EmailMessage
	TaskID  string // the message's, as Enqueue has returned it
	Queue   string // as the producer named it
	Mailer  string // "" for the default one
	Mailing string
	Tags    []string
}

// Stop returns the error with which a BeforeSend stops a message for good: it becomes a dead letter with that reason.
func Stop(reason string) error {
	return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepPolicy, Text: reason}
}

// hooks are those of a worker, for its senders.
type hooks struct {
	before []BeforeSend
	log    zerolog.Logger
}

// around returns a batch of deliveries whose messages pass through the hooks, in their order, when each has its turn.
func (h hooks) around(ctx context.Context, deliveries []*delivery, b mailer.Batch) mailer.Batch {
	for _, hook := range h.before {
		b = outgoing.Batch(b, func(i int, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
			d := deliveries[i]
			to, err := hook.BeforeSend(ctx, Outgoing{m, d.noted.id, d.noted.queue, d.noted.mailer, d.mailing, d.noted.tags})
			if e := (*mailer.SendError)(nil); to != nil && errors.As(err, &e) && len(e.Refused) > 0 {
				return to, err
			}
			if err != nil {
				return nil, ofHook(ctx, err)
			}
			return to, nil
		}, h.panicked)
	}
	return b
}

// ofHook is the error of a hook as that of its message: a relay has said nothing, and none is to be held.
func ofHook(ctx context.Context, err error) error {
	if stopping := mailer.ContextErr(ctx); stopping != nil {
		return stopping
	}
	if e := (*mailer.SendError)(nil); errors.As(err, &e) && e.Class != mailer.Permanent {
		return deliverypolicy.OfMessage(err)
	}
	return err
}

// panicked logs where a hook has panicked.
func (h hooks) panicked(e *outgoing.PanicError) {
	h.log.Error().Bytes("stack", e.Stack).Msg("a hook panicked: " + redact.Panic(e.Value))
}
