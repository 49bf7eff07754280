package queuetest

import (
	"context"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// What people do to mail that is in the queue: with `enqueue pause`, `resume`, `cancel --mailing` and `dead`, with the pages of a worker, or in
// Go with tasks.Pauses, tasks.Queue and tasks.DeadLetters.

// Pause lets RunDue send nothing of a target until Resume. Deadlines and ages go on. Unlike tasks.Pauses it takes queues and mailers that
// nothing was ever put into.
func (q *Queue) Pause(_ context.Context, what Target) error {
	if err := what.validate(); err != nil {
		return err
	}
	s := q.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil && !slices.Contains(s.paused, what) {
		s.paused = append(s.paused, what)
	}
	return s.down
}

// Resume ends the pause of exactly that target. It is false if there was none.
func (q *Queue) Resume(_ context.Context, what Target) (bool, error) {
	if err := what.validate(); err != nil {
		return false, err
	}
	s := q.store
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.paused, what)
	if s.down != nil || at < 0 {
		return false, s.down
	}
	s.paused = slices.Delete(s.paused, at, at+1)
	return true, nil
}

// Paused returns what is paused, the oldest pause first.
func (q *Queue) Paused() []Target {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	return slices.Clone(q.store.paused)
}

// CancelledMailing is what came of a mailing.
type CancelledMailing struct {
	Cancelled int // messages that were not sent and will not be
	TooLate   int // of those that are in the queue yet: on the wire, may have been sent, kept after they were, or dead letters
}

// CancelMailing takes back all messages of a mailing that wait, in all queues and for all mailers.
func (q *Queue) CancelMailing(_ context.Context, name string) (CancelledMailing, error) {
	var c CancelledMailing
	if err := mailer.CheckName("mailing", name); err != nil {
		return c, err
	}
	s := q.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return c, s.down
	}
	for _, t := range slices.Clone(s.tasks) {
		switch {
		case t.Options.Mailing != name:
		case s.take(t):
			c.Cancelled++
		default:
			c.TooLate++
		}
	}
	return c, nil
}

// Replay queues a dead letter anew, as if it had been handed over now, and returns the ID of the new task. queue is that of its options, with
// the name of the mailer in front if it has one (marketing.bulk). The error is ErrNotDead if there is no such dead letter.
func (q *Queue) Replay(_ context.Context, queue, id string) (string, error) {
	s := q.store
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.dead(queue, id)
	if err != nil {
		return "", err
	}
	p, err := t.payload()
	if err != nil {
		return "", err
	}
	again := p.BaseID(id) + "-again"
	p.DueAt, p.Deadline, p.Refused, p.Spent = wire.DueOnce(time.Now()), nil, "", 0
	if err := s.put(again, p, t.Options, p.DueAt); err != nil {
		return "", err
	}
	if handover.IsOnce(t.Options) {
		s.next[place{t.queue(), handover.OnceID(t.meta.Digest, t.Options)}] = again
		s.again[place{t.queue(), id}] = again
	}
	s.remove(t)
	return again, nil
}

// Delete removes a dead letter for good. The error is ErrNotDead if there is none.
func (q *Queue) Delete(_ context.Context, queue, id string) error {
	s := q.store
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.dead(queue, id)
	if err == nil {
		s.remove(t)
	}
	return err
}
