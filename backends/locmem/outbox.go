package locmem

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mailpouch/mailpouch/mailer"
)

// Mail is one message as it was sent.
type Mail struct {
	Message  *mailer.EmailMessage // with its defaults filled in
	Envelope mailer.Envelope      // Bcc is here, and never in Raw
	Raw      []byte               // as rendered (RFC 5322), with CRLF line ends
	Options  mailer.Options       // with which the message was handed over (Mailer.With)
}

// Outbox holds the messages that its backends accepted, the oldest first. The zero
// value is empty and ready for use. It may be used by several goroutines.
type Outbox struct {
	mu      sync.Mutex // guards what follows
	mails   []Mail
	changed chan struct{} // closed at the next add; nil if nobody waits
}

// Messages returns a copy of all that was sent since the last Reset. Changing it
// changes nothing in the Outbox.
func (o *Outbox) Messages() []Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.copies()
}

// To returns the messages whose envelope has that recipient, the oldest first. The address may have a display name; letter case
// does not matter.
func (o *Outbox) To(address string) []Mail {
	wanted, err := (&mailer.EmailMessage{FromEmail: address, To: []string{address}}).Envelope()
	if err != nil || len(wanted.To) != 1 {
		return nil
	}
	return o.Find(func(m Mail) bool {
		return slices.ContainsFunc(m.Envelope.To, func(to string) bool { return strings.EqualFold(to, wanted.To[0]) })
	})
}

// Find returns the messages that match, the oldest first.
func (o *Outbox) Find(match func(Mail) bool) []Mail {
	return slices.DeleteFunc(o.Messages(), func(m Mail) bool { return !match(m) })
}

// Len returns how many messages were sent since the last Reset.
func (o *Outbox) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.mails)
}

// Reset empties the Outbox.
func (o *Outbox) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mails = nil
}

// Wait returns the messages as Messages does, as soon as there are n or more. It is
// for a program that sends from another goroutine. Its error wraps that of ctx.
func (o *Outbox) Wait(ctx context.Context, n int) ([]Mail, error) {
	for {
		mails, have, changed := o.look(n)
		if mails != nil {
			return mails, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("locmem: waiting for %d messages, have %d: %w", n, have, ctx.Err())
		}
	}
}

// look returns the messages if there are n, else how many there are and a channel
// that is closed when there is one more.
func (o *Outbox) look(n int) (mails []Mail, have int, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mails) >= n {
		return o.copies(), len(o.mails), nil
	}
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return nil, len(o.mails), o.changed
}

func (o *Outbox) add(m Mail) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mails = append(o.mails, m)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// copies is never nil. o.mu must be held.
func (o *Outbox) copies() []Mail {
	all := make([]Mail, 0, len(o.mails))
	for _, m := range o.mails {
		m.Message = cloneMessage(m.Message)
		m.Envelope.To = slices.Clone(m.Envelope.To)
		m.Raw = bytes.Clone(m.Raw)
		m.Options.Tags = slices.Clone(m.Options.Tags)
		if m.Options.MaxRetry != nil {
			m.Options.MaxRetry = new(*m.Options.MaxRetry)
		}
		all = append(all, m)
	}
	return all
}

// cloneMessage returns a message that shares nothing with m.
func cloneMessage(m *mailer.EmailMessage) *mailer.EmailMessage {
	c := *m
	c.To = slices.Clone(m.To)
	c.Cc = slices.Clone(m.Cc)
	c.Bcc = slices.Clone(m.Bcc)
	c.ReplyTo = slices.Clone(m.ReplyTo)
	c.Headers = maps.Clone(m.Headers)
	c.Raw = bytes.Clone(m.Raw)
	c.Alternatives = slices.Clone(m.Alternatives)
	c.Attachments = slices.Clone(m.Attachments)
	for i := range c.Attachments {
		c.Attachments[i].Content = bytes.Clone(c.Attachments[i].Content)
	}
	return &c
}
