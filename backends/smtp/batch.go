package smtp

import (
	"context"
	"slices"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// A batch is a mailer.Batch on its way. It renders each message shortly before it is its
// turn, and reports each one's result once.
type batch struct {
	given    mailer.Batch // by the caller of SendBatch
	defaults mailer.Defaults
	settled  func(m *message, r mailer.Result) // for hooks; nil if nobody listens

	next    int             // the first message not looked at
	ready   []*message      // to be sent before it
	free    []*message      // to be used again
	known   []mailer.Report // to be reported
	changes bool            // Begin has returned another message than the one given: to render ahead is in vain
}

// newBatch prepares nothing yet. free are messages whose buffers can be used again.
func newBatch(ctx context.Context, messages mailer.Batch, defaults mailer.Defaults, h *Hooks, free []*message) *batch {
	b := &batch{given: messages, defaults: defaults, free: free}
	if h.times() {
		b.settled = func(m *message, r mailer.Result) { h.settled(ctx, m.event(r)) }
	}
	return b
}

// peek returns the next message without taking it, or nil if there is none.
// Messages that cannot be sent to anybody are reported on the way.
func (b *batch) peek() *message {
	for len(b.ready) == 0 && b.next < len(b.given.Messages) {
		b.prepare(b.next)
		b.next++
	}
	if len(b.ready) == 0 {
		return nil
	}
	return b.ready[0]
}

func (b *batch) prepare(i int) {
	m := b.blank()
	var err error
	if given := b.given.Messages[i]; b.changes {
		err = m.address(i, given.WithDefaults(b.defaults))
	} else {
		err = b.load(m, i, given)
	}
	switch {
	case err != nil:
		b.note(i, unsendable(err))
	case len(m.to) == 0:
		b.note(i, mailer.Result{Skipped: true})
	default:
		b.ready = append(b.ready, m)
		return
	}
	b.recycle(m)
}

// load makes m what is sent for a message.
func (b *batch) load(m *message, i int, email *mailer.EmailMessage) error {
	err := m.load(i, email.WithDefaults(b.defaults))
	m.loaded = email
	return err
}

// take takes the message that peek returned.
func (b *batch) take() *message {
	m := b.peek()
	if m != nil {
		b.ready = slices.Delete(b.ready, 0, 1)
	}
	return m
}

// putBack makes messages the next ones.
func (b *batch) putBack(messages ...*message) { b.ready = slices.Insert(b.ready, 0, messages...) }

// note keeps a result for the next report.
func (b *batch) note(i int, r mailer.Result) {
	b.known = append(b.known, mailer.Report{Index: i, Result: r})
}

// report reports what is known by now, if there is anything.
func (b *batch) report() bool {
	if len(b.known) == 0 {
		return false
	}
	b.given.Report(b.known)
	b.known = b.known[:0]
	return true
}

// admit asks whether the message that take returned may be sent now, and as what, and reports it if not. A
// message that was accepted for some recipients goes on to the others without asking: its
// sender has been told yes, and part of it is delivered.
func (b *batch) admit(m *message) bool {
	if b.given.Begin == nil || m.reply != "" {
		return true
	}
	i, conn := m.index, m.connection()
	email, err := b.given.Begin(i)
	if err != nil {
		b.end(m, mailer.Result{Err: err, Connection: conn})
		return false
	}
	if email == m.loaded {
		return true
	}
	b.changes = b.changes || email != b.given.Messages[i]
	soFar := m.told
	if soFar.conn != nil {
		m.body = nil // it may be on its way yet, over a connection that broke
	}
	err = b.load(m, i, email)
	m.told = soFar
	switch {
	case err != nil:
		b.end(m, unsendable(err))
	case len(m.to) == 0:
		b.end(m, mailer.Result{Skipped: true})
	default:
		return true
	}
	return false
}

// unsendable is the result of a message that cannot be rendered or addressed.
func unsendable(err error) mailer.Result {
	return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}}
}

// commit asks whether the message may be accepted now. The error, if not nil, is its result. As with admit, one that was
// accepted for some recipients is not asked for.
func (b *batch) commit(m *message) error {
	if b.given.Commit == nil || m.reply != "" {
		return nil
	}
	return b.given.Commit(m.index)
}

// finish ends a message whose transactions are over.
func (b *batch) finish(m *message) { b.end(m, m.result()) }

// end ends a message that has its result. Hooks are told if it was given to a connection.
func (b *batch) end(m *message, r mailer.Result) {
	if b.settled != nil && m.conn != nil {
		b.settled(m, r)
	}
	b.note(m.index, r)
	b.recycle(m)
}

// failAll reports all that is left as failed, each with a copy of err.
func (b *batch) failAll(err *mailer.SendError) {
	for m := b.take(); m != nil; m = b.take() {
		failure := *err
		m.begin(m.conn) // it may have been given to one that broke
		m.err = &failure
		b.finish(m)
	}
}

// blank returns a message to be loaded.
func (b *batch) blank() *message {
	if n := len(b.free); n > 0 {
		m := b.free[n-1]
		b.free = b.free[:n-1]
		return m
	}
	return &message{}
}

func (b *batch) recycle(m *message) {
	m.loaded = nil
	if cap(m.body) > transport.BigBody {
		m.body = nil // it may be on its way yet, if the server has answered too early
	}
	b.free = append(b.free, m)
}
