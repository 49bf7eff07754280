package queuetest

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// State says where in its life a task is.
type State string

// The states.
const (
	Waiting State = "waiting"
	OnWire  State = "on the wire" // RunDue is sending it
	Sent    State = "sent"        // and kept for its retention, or its key
	Dead    State = "dead letter"
)

// Task is a message in the queue. Changing it changes nothing there.
type Task struct {
	ID         string
	Message    *mailer.EmailMessage
	Recipients []string       // only these of the message's, if not empty
	Options    mailer.Options // with which the message was handed over
	State      State
	Due        time.Time // when it is to be sent, or tried again
	Tries      int       // so far
	Reason     string    // why it was not sent the last time
	Reply      string    // the relay's, of one that was sent
}

// ErrNotDead reports that there is no dead letter with an ID.
var ErrNotDead = errors.New("no such dead letter")

// Target is what is paused, as tasks.PauseTarget: a queue, of all mailers or of one; a mailer, of which "default" is the one without a
// name; or a mailing.
type Target struct{ Queue, Mailer, Mailing string }

func (t Target) validate() error {
	switch {
	case t == Target{}:
		return errors.New("queuetest: nothing to pause: a queue, a mailer or a mailing is expected")
	case t.Mailing != "" && (t.Queue != "" || t.Mailer != ""):
		return errors.New("queuetest: a mailing is paused in all queues and for all mailers: it cannot be named together with one")
	}
	for kind, name := range map[string]string{"queue": t.Queue, "mailer": t.Mailer, "mailing": t.Mailing} {
		if name == "" {
			continue
		}
		if err := mailer.CheckName(kind, name); err != nil {
			return err
		}
	}
	return nil
}

// covers reports whether a task is paused with the target.
func (t Target) covers(o mailer.Options) bool {
	if t.Mailing != "" {
		return t.Mailing == o.Mailing
	}
	using := o.Using
	if using == "" {
		using = handover.DefaultMailer
	}
	return (t.Queue == "" || t.Queue == queueOf(o)) && (t.Mailer == "" || t.Mailer == using)
}

// place is where the ID of a message that is handed over once is the same message's.
type place struct{ queue, id string }

// task is a Task with what the queue knows of it.
type task struct {
	Task
	data    []byte // the payload, as it would be in Redis
	meta    wire.Meta
	inDoubt bool      // a try may have delivered it
	until   time.Time // of one that was sent: how long it is kept
}

// payload is that of the task, which nobody else has.
func (t *task) payload() (*wire.Payload, error) { return wire.Decode(t.data, nil) }

// queue is the name of the task's queue, as the program knows it.
func (t *task) queue() string { return queueOf(t.Options) }

func queueOf(o mailer.Options) string { return cmp.Or(o.Queue, "default") }

// attempt is what is known of the task when a try ends.
func (t *task) attempt(now time.Time, failSilently bool) deliverypolicy.Attempt {
	a := deliverypolicy.Attempt{
		Now: now, Due: t.meta.DueAt, Retried: t.Tries, MaxRetry: mailer.DefaultMaxRetry,
		FailSilently: failSilently, AtMostOnce: t.meta.AtMostOnce,
	}
	if t.Options.MaxRetry != nil {
		a.MaxRetry = *t.Options.MaxRetry
	}
	if t.meta.Deadline != nil {
		a.Deadline = *t.meta.Deadline
	}
	return a
}

// store has the tasks.
type store struct {
	window time.Duration

	mu     sync.Mutex // guards what follows
	down   error      // what all fails with
	tasks  []*task
	rests  map[string]time.Time // until when the relay of a mailer wants no mail
	next   map[place]string     // the ID that a key has after its task was cancelled, or replayed
	again  map[place]string     // the ID of what a dead letter with a key was replayed as
	paused []Target
}

// add puts a message into the queue, unless it is one that is there and is to be there once.
func (s *store) add(p *wire.Payload, o mailer.Options, now time.Time) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return "", s.down
	}
	id = rand.Text()
	if handover.IsOnce(o) {
		if id, err = handover.Once(p, o); err != nil {
			return "", err
		}
		id = cmp.Or(s.next[place{queueOf(o), id}], id)
		s.forget(now)
		if i := s.index(id, o); i >= 0 {
			return s.tasks[i].judge(p, o)
		}
	}
	if err := s.put(id, p, o, wire.Due(p.DueAt)); err != nil {
		return "", err
	}
	return id, nil
}

// addMany puts messages into the queue that share a task in Redis, and returns the ID of that.
func (s *store) addMany(payloads []*wire.Payload, o mailer.Options) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return "", s.down
	}
	id = rand.Text()
	before := len(s.tasks)
	for i, p := range payloads {
		if err := s.put(wire.MessageID(id, i), p, o, wire.Due(p.DueAt)); err != nil {
			s.tasks = s.tasks[:before]
			return "", err
		}
	}
	return id, nil
}

// judge decides what an earlier task means for a hand-over of the same key.
func (t *task) judge(p *wire.Payload, o mailer.Options) (id string, err error) {
	switch {
	case t.meta.Digest != p.Digest:
		err = &mailer.IdempotencyError{Key: o.IdempotencyKey, ID: t.ID}
	case t.State == Dead:
		name := wire.QueueName{Mailer: t.Options.Using, Queue: t.queue()}
		err = &mailer.DeadLetterError{ID: t.ID, Queue: name.String(), Reason: t.Reason}
	default:
		return t.ID, nil
	}
	return "", &mailer.SendError{Class: mailer.Permanent, Step: handover.StepQueue, Err: err}
}

// put adds a task. s.mu is held.
func (s *store) put(id string, p *wire.Payload, o mailer.Options, due time.Time) error {
	data, err := p.Encode()
	if err != nil {
		return handover.Refused(err)
	}
	own, err := wire.Decode(data, nil)
	if err != nil {
		return handover.Refused(err)
	}
	o.Tags = slices.Clone(o.Tags)
	s.tasks = append(s.tasks, &task{
		Task: Task{ID: id, Message: own.Message, Recipients: own.Recipients, Options: o, State: Waiting, Due: due},
		data: data, meta: own.Meta,
	})
	return nil
}

// index is where the task with an ID is that was handed over with such options: of that queue, and not of another mailer.
// s.mu is held.
func (s *store) index(id string, o mailer.Options) int {
	return slices.IndexFunc(s.tasks, func(t *task) bool {
		return t.ID == id && t.queue() == queueOf(o) && (o.Using == "" || t.Options.Using == "" || t.Options.Using == o.Using)
	})
}

// forget removes what was sent and is kept no longer. s.mu is held.
func (s *store) forget(now time.Time) {
	s.tasks = slices.DeleteFunc(s.tasks, func(t *task) bool { return t.State == Sent && !t.until.After(now) })
}

func (s *store) cancel(id string, o mailer.Options) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	i := s.index(id, o)
	if again := s.again[place{queueOf(o), id}]; i < 0 && again != "" { // it was replayed
		i = s.index(again, o)
	}
	switch {
	case i < 0:
		return fmt.Errorf("queuetest: %s: %w", id, mailer.ErrNoTask)
	case !s.take(s.tasks[i]):
		return fmt.Errorf("queuetest: %s: %w: it is on the wire, or has ended", id, mailer.ErrTooLate)
	}
	return nil
}

func (s *store) reschedule(id string, at time.Time, o mailer.Options) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	i := s.index(id, o)
	if i < 0 {
		return fmt.Errorf("queuetest: %s: %w", id, mailer.ErrNoTask)
	}
	t := s.tasks[i]
	switch {
	case t.State != Waiting || t.Tries > 0 || t.inDoubt:
		return fmt.Errorf("queuetest: %s: %w: it is on the wire, a try has failed, or it has ended", id, mailer.ErrTooLate)
	case inBulk(id):
		return fmt.Errorf("queuetest: %s: %w", id, mailer.ErrInBulk)
	}
	p, err := wire.Decode(t.data, nil)
	if err != nil {
		return err
	}
	if p, err = handover.DueAt(p, at, time.Now()); err != nil {
		return err
	}
	data, err := p.Encode()
	if err != nil {
		return handover.Refused(err)
	}
	t.data, t.meta, t.Message, t.Due = data, p.Meta, p.Message, p.DueAt
	return nil
}

// inBulk reports whether a message shares its task with others.
func inBulk(id string) bool {
	_, _, ok := wire.SplitID(id)
	return ok && !handover.IsOnceID(id)
}

// take takes a task back if it was not sent yet, for sure. s.mu is held.
func (s *store) take(t *task) bool {
	if t.State != Waiting || t.inDoubt {
		return false
	}
	if handover.IsOnce(t.Options) {
		s.next[place{t.queue(), handover.OnceID(t.meta.Digest, t.Options)}] = handover.NextID(t.ID)
	}
	s.remove(t)
	return true
}

// remove removes a task. s.mu is held.
func (s *store) remove(t *task) {
	s.tasks = slices.DeleteFunc(s.tasks, func(other *task) bool { return other == t })
}

func (s *store) list() []Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	tasks := make([]Task, 0, len(s.tasks))
	for _, t := range s.tasks {
		shown := t.Task
		if p, err := t.payload(); err == nil {
			shown.Message, shown.Recipients = p.Message, p.Recipients
		}
		shown.Options.Tags = slices.Clone(shown.Options.Tags)
		tasks = append(tasks, shown)
	}
	return tasks
}

// dead is a dead letter. s.mu is held.
func (s *store) dead(queue, id string) (*task, error) {
	if s.down != nil {
		return nil, s.down
	}
	for _, t := range s.tasks {
		if name := (wire.QueueName{Mailer: t.Options.Using, Queue: t.queue()}); t.ID == id && t.State == Dead && name.String() == queue {
			return t, nil
		}
	}
	return nil, fmt.Errorf("queuetest: %s: %w", id, ErrNotDead)
}

// isPaused reports whether a task is not to be sent. s.mu is held.
func (s *store) isPaused(t *task) bool {
	return slices.ContainsFunc(s.paused, func(p Target) bool { return p.covers(t.Options) })
}
