// Package delivery is the part of mailer.Backend's contract that does not depend on
// where the mail goes. The simple backends share it.
package delivery

import (
	"context"

	"github.com/mailpouch/mailpouch/mailer"
)

// Each completes each message, checks it, hands it to put with its envelope, and
// reports what became of it before it takes the next one. What cannot be sent, and
// what has no recipient, never reaches put. Once ctx is done nothing reaches it.
func Each(
	ctx context.Context,
	messages []*mailer.EmailMessage,
	defaults mailer.Defaults,
	report func(i int, r mailer.Result),
	put func(m *mailer.EmailMessage, to mailer.Envelope) error,
) {
	for i, m := range messages {
		report(i, one(ctx, m.WithDefaults(defaults), put))
	}
}

func one(ctx context.Context, m *mailer.EmailMessage, put func(*mailer.EmailMessage, mailer.Envelope) error) mailer.Result {
	if err := m.Validate(); err != nil {
		return mailer.Result{Err: err}
	}
	to, err := m.Envelope()
	if err != nil {
		return mailer.Result{Err: err}
	}
	if len(to.To) == 0 {
		return mailer.Result{Skipped: true}
	}
	if err := Ready(ctx); err != nil {
		return mailer.Result{Err: err}
	}
	return mailer.Result{Err: put(m, to)}
}

// Ready is the error of a call whose context is done, or nil. That time is up is not
// the message's fault, and nothing was accepted.
func Ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: err}
	}
	return nil
}
