// Package queuetest is a queue in memory, for the tests of programs that hand their mail over: it takes messages as
// tasks.Queue does, with the same options, IDs and errors, and RunDue does what a worker would by then.
//
//	queue := queuetest.New(queuetest.Config{Connect: func(string) (mailer.Backend, error) { return backend, nil }})
//	mail, err := mailer.New(mailer.Config{Connect: queue.Connect})
//	...                                             // the program sends with mail
//	outcomes, err := queue.RunDue(ctx, time.Now())  // and what is due arrives at backend
//
// There is no Redis, no goroutine and no waiting: time passes when the test says so. A test that wants the program's own
// time to pass too runs in a bubble of testing/synctest. What becomes of a message after a try is decided by the same code as
// in a worker, and what an operator does can be done here too: Pause, Resume, CancelMailing, Replay, Delete. What a worker does for the sake of
// speed and of many processes is not here: one connection sends after the other, and a relay that takes no mail is asked again at the
// next RunDue.
package queuetest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Queue. The zero value is usable. Its fields mean what those of tasks.QueueConfig and of
// tasks.WorkerConfig mean.
type Config struct {
	Defaults mailer.Defaults // what a message may leave out, filled in at hand-over
	Options  mailer.Options  // for every message, unless With gives others
	Mailers  []string        // the named mailers that Using may name: any if nil

	// Connect returns the backend of the mailer with that name, "" for the default one. RunDue asks for one of each mailer that has
	// mail. If nil, every message is accepted.
	Connect func(mailer string) (mailer.Backend, error)

	// BulkSize is how many messages that are handed over together share a task: 100 if zero, none if 1. Here that is to be seen by their IDs alone:
	// each message has its own outcome and is cancelled by its own ID, as in a worker.
	BulkSize int

	RetryMin          time.Duration // shortest pause before another try: 5 s if zero
	RetryMax          time.Duration // longest one: 1 h if zero
	MaxAge            time.Duration // after this a message that could not be sent is a dead letter: 120 h if zero
	IdempotencyWindow time.Duration // how long after its message was sent a key is remembered: 24 h if zero
}

// Queue is a mailer.Backend that keeps messages until RunDue. It may be used by several goroutines. Those that With and
// Connect return have the same messages.
type Queue struct {
	cfg     Config
	store   *store
	options mailer.Options
	open    bool // store.mu is held
}

var (
	_ mailer.Backend     = (*Queue)(nil)
	_ mailer.BatchSender = (*Queue)(nil)
)

// New returns an empty queue.
func New(cfg Config) *Queue {
	cfg.BulkSize = cmp.Or(cfg.BulkSize, 100)
	cfg.RetryMin = cmp.Or(cfg.RetryMin, deliverypolicy.DefaultRetryMin)
	cfg.RetryMax = cmp.Or(cfg.RetryMax, deliverypolicy.DefaultRetryMax)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, deliverypolicy.DefaultMaxAge)
	cfg.IdempotencyWindow = cmp.Or(cfg.IdempotencyWindow, 24*time.Hour)
	q := &Queue{cfg: cfg, store: &store{window: cfg.IdempotencyWindow, next: map[place]string{}, again: map[place]string{}, rests: map[string]time.Time{}}}
	return q.only(cfg.Options)
}

// With returns a queue that hands over with these options. What they leave open is as q has it.
func (q *Queue) With(o mailer.Options) *Queue { return q.only(o.Or(q.options)) }

func (q *Queue) only(o mailer.Options) *Queue {
	if o.Using == handover.DefaultMailer {
		o.Using = ""
	}
	return &Queue{cfg: q.cfg, store: q.store, options: o}
}

// Connect is a mailer.Config.Connect.
func (q *Queue) Connect(c mailer.Connection) (mailer.Backend, error) {
	if c.Username != "" || c.Password != "" {
		return nil, errors.New("queuetest: a queue takes no auth_user or auth_password: configure them where the worker runs")
	}
	o := q.options
	o.Using = cmp.Or(c.Using, o.Using)
	other := q.only(o)
	return other, other.checkMailer()
}

// checkMailer returns an UnknownMailerError if the options name a mailer that is not configured.
func (q *Queue) checkMailer() error {
	if name := q.options.Using; name != "" && q.cfg.Mailers != nil && !slices.Contains(q.cfg.Mailers, name) {
		return &mailer.UnknownMailerError{Name: name, Known: q.cfg.Mailers}
	}
	return nil
}

// Fail makes all that the queue is asked fail with err, as if Redis were away: an error of class Unavailable. With nil it
// takes messages again.
func (q *Queue) Fail(err error) {
	if err != nil {
		err = &mailer.SendError{Class: mailer.Unavailable, Step: handover.StepQueue, Err: err}
	}
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	q.store.down = err
}

// Open opens nothing, but keeps account of it.
func (q *Queue) Open(ctx context.Context) (opened bool, err error) {
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	opened, q.open = !q.open && q.store.down == nil, q.open || q.store.down == nil
	return opened, q.store.down
}

// Close never fails.
func (q *Queue) Close() error {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	q.open = false
	return nil
}

// SendMessages hands the messages over.
func (q *Queue) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, q, messages)
}

// SendBatch implements mailer.BatchSender. The options of the batch come before those of the queue, as With says. The TaskID of a Result,
// which is its Reply too, is that of the message's task, or its own ID where it shares one with others: see Config.BulkSize.
func (q *Queue) SendBatch(ctx context.Context, batch mailer.Batch) {
	q = q.With(batch.Options)
	var payloads []*wire.Payload // that are to share a task
	var indexes []int
	flush := func() {
		q.handOverMany(payloads, indexes, batch.Report)
		payloads, indexes = nil, nil
	}
	for i := range batch.Messages {
		p, r := q.ask(ctx, batch, i)
		switch {
		case p == nil:
			batch.Report([]mailer.Report{{Index: i, Result: r}})
		case q.cfg.BulkSize == 1 || handover.IsOnce(q.options):
			batch.Report([]mailer.Report{{Index: i, Result: q.handOver(p)}})
		default:
			payloads, indexes = append(payloads, p), append(indexes, i)
		}
		if len(payloads) == q.cfg.BulkSize {
			flush()
		}
	}
	flush()
}

// Enqueue hands one message over and returns the ID of its task. The ID is empty if
// the message has no recipients.
func (q *Queue) Enqueue(ctx context.Context, m *mailer.EmailMessage) (taskID string, err error) {
	p, r := q.prepare(ctx, m)
	if p != nil {
		r = q.handOver(p)
	}
	return r.TaskID, r.Err
}

// ask makes the payload of a message of a batch, of which the batch is asked. For one that may not be handed over it is nil.
func (q *Queue) ask(ctx context.Context, batch mailer.Batch, i int) (*wire.Payload, mailer.Result) {
	p, r := q.prepare(ctx, batch.Messages[i])
	if p != nil && batch.Begin != nil {
		m, err := batch.Begin(i)
		if err != nil {
			return nil, mailer.Result{Err: err}
		}
		if m != batch.Messages[i] {
			p, r = q.prepare(ctx, m)
		}
	}
	if p != nil && batch.Commit != nil {
		if err := batch.Commit(i); err != nil {
			return nil, mailer.Result{Err: err}
		}
	}
	return p, r
}

// prepare makes the payload of a message. For one that may not be handed over it is nil.
func (q *Queue) prepare(ctx context.Context, m *mailer.EmailMessage) (*wire.Payload, mailer.Result) {
	if err := cmp.Or(q.options.Validate(), q.checkMailer()); err != nil {
		return nil, mailer.Result{Err: handover.Refused(err)}
	}
	p, err := handover.Prepare(m, q.options, q.cfg.Defaults, time.Now(), nil)
	if p == nil {
		return nil, mailer.Result{Err: err, Skipped: err == nil}
	}
	if err := mailer.ContextErr(ctx); err != nil {
		return nil, mailer.Result{Err: err}
	}
	return p, mailer.Result{}
}

// handOver puts a message into the queue.
func (q *Queue) handOver(p *wire.Payload) mailer.Result {
	id, err := q.store.add(p, q.options, time.Now())
	return mailer.Result{Reply: id, TaskID: id, Err: err}
}

// handOverMany puts messages that share a task into the queue.
func (q *Queue) handOverMany(payloads []*wire.Payload, indexes []int, report func([]mailer.Report)) {
	switch len(payloads) {
	case 0:
		return
	case 1:
		report([]mailer.Report{{Index: indexes[0], Result: q.handOver(payloads[0])}})
		return
	}
	id, err := q.store.addMany(payloads, q.options)
	group := make([]mailer.Report, len(payloads))
	for n, i := range indexes {
		r := mailer.Result{Err: err}
		if err == nil {
			r.TaskID = wire.MessageID(id, n)
			r.Reply = r.TaskID
		}
		group[n] = mailer.Report{Index: i, Result: r}
	}
	report(group)
}

// Cancel takes a message back by the ID that Enqueue returned, from the queue that the options name. Nil means that it has not been
// sent and will not be. Else the error is mailer.ErrTooLate or mailer.ErrNoTask. An idempotency key is free again
// afterwards.
func (q *Queue) Cancel(_ context.Context, id string) error { return q.store.cancel(id, q.options) }

// Reschedule gives a message that waits another time of sending, as tasks.Queue.Reschedule does: mailer.ErrTooLate, mailer.ErrInBulk,
// mailer.ErrNoTask, or an error of class Permanent.
func (q *Queue) Reschedule(_ context.Context, id string, at time.Time) error {
	return q.store.reschedule(id, at, q.options)
}

// Tasks returns what is in the queue, in the order of the hand-overs: what waits, dead letters, and what has been sent and is
// kept for its retention or its key.
func (q *Queue) Tasks() []Task { return q.store.list() }
