package tasks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// QueueConfig configures a Queue. The zero value is usable.
type QueueConfig struct {
	Defaults mailer.Defaults // what a message may leave out, filled in at hand-over

	// TaskTimeout bounds how long a worker may hold one task, waiting and sending:
	// 30 minutes if zero. It must be longer than the worker's BatchTimeout.
	TaskTimeout time.Duration

	// Mailers are the named mailers that Using may name. If nil, any name is passed on,
	// and it is the worker that knows them.
	Mailers []string

	// AttachmentThreshold is how many octets an attachment may have to ride in the payload,
	// or a body, an alternative or a raw message: 64,000 if zero. Bigger ones are stored
	// beside the queue, each content once. If negative, all ride, and a worker's memory is
	// bounded by nothing but its number of tasks.
	AttachmentThreshold int

	// MaxMessageSize is how many octets a message may have as it is sent: no limit if zero.
	MaxMessageSize int

	// IdempotencyWindow is how long after its message was sent an idempotency key is
	// remembered: 24 hours if zero.
	IdempotencyWindow time.Duration

	// MassSize is how many messages that are handed over together travel in one task, at
	// most: 100 if zero. If 1, each has its own.
	MassSize int

	// Shards is in how many parts, each in a place of its own, the queues are, so that the
	// masters of a Redis Cluster share the work: in one piece if zero or 1. It may
	// grow, if WorkerConfig.Shards grows first.
	Shards int

	Tracer Tracer // no traces if nil

	Options Options // for every message, unless With gives others
}

// Options say how a message waits in the queue.
type Options struct {
	Using      string        // the named mailer that is to deliver: the default one if empty
	Queue      string        // "default" if empty
	ProcessAt  time.Time     // not before this time; Date is set to it too
	ProcessIn  time.Duration // the same, counted from the hand-over; excludes ProcessAt
	MaxRetry   *int          // tries after the first one: 25 if nil
	Deadline   time.Time     // not sent after this time: it becomes a dead letter
	AtMostOnce bool          // rather not delivered than delivered twice: what is in doubt becomes a dead letter
	Retention  time.Duration // how long the finished task, with the relay's reply, stays visible

	// IdempotencyKey names the hand-over of one message: the queue takes it once, however
	// often it is handed over while the key is remembered, and returns the first task's
	// ID each time. That ends the window after the message was sent, or when it is
	// cancelled. Another message with the same key is an IdempotencyError, one whose task
	// is a dead letter a DeadLetterError. Each queue of each mailer has its own keys. The
	// task's ID shows the beginning of the key. At most 255 octets, no control characters.
	IdempotencyKey string

	// Unique says that the same content is not queued again while it waits, and for so
	// long after it was sent: the first task's ID is returned. Message-ID, Date and the
	// time of sending are not content. At least a second; it excludes IdempotencyKey.
	Unique time.Duration
}

// DefaultMaxRetry is how many tries a message gets after its first one.
const DefaultMaxRetry = 25

// Validate says which option is impossible.
func (o Options) Validate() error {
	switch {
	case o.Queue != "" && (strings.TrimSpace(o.Queue) == "" || strings.ContainsAny(o.Queue, "{}.:~")):
		return fmt.Errorf("tasks: queue %q: a name of letters, digits, '-' and '_' is wanted", o.Queue)
	case !o.ProcessAt.IsZero() && o.ProcessIn != 0:
		return errors.New("tasks: process_at and process_in exclude each other")
	case o.ProcessIn < 0:
		return fmt.Errorf("tasks: process_in %v: cannot be negative", o.ProcessIn)
	case o.MaxRetry != nil && *o.MaxRetry < 0:
		return fmt.Errorf("tasks: max_retry %d: cannot be negative", *o.MaxRetry)
	case o.Retention < 0:
		return fmt.Errorf("tasks: retention %v: cannot be negative", o.Retention)
	case !o.Deadline.IsZero() && o.due(time.Now()).After(o.Deadline):
		return fmt.Errorf("tasks: deadline %v is before the time of sending", o.Deadline.Format(time.RFC3339))
	}
	return o.validateKey()
}

// due is when the message is to be sent.
func (o Options) due(now time.Time) time.Time {
	if o.ProcessAt.After(now) {
		return o.ProcessAt
	}
	return now.Add(o.ProcessIn)
}

// Queue is a mailer.Backend that hands messages to the workers: each message becomes
// an asynq task, and "accepted" means that Redis has it. Unlike other backends it may
// be used by several goroutines.
type Queue struct {
	redis  redis.UniversalClient
	client *producer
	cfg    QueueConfig
	open   *atomic.Bool
}

var (
	_ mailer.Backend     = (*Queue)(nil)
	_ mailer.BatchSender = (*Queue)(nil)
)

// NewQueue returns a queue in the given Redis, which it does not close.
func NewQueue(client redis.UniversalClient, cfg QueueConfig) *Queue {
	if cfg.TaskTimeout == 0 {
		cfg.TaskTimeout = 30 * time.Minute
	}
	cfg.AttachmentThreshold = cmp.Or(cfg.AttachmentThreshold, 64_000)
	cfg.MassSize = cmp.Or(cfg.MassSize, 100)
	cfg.IdempotencyWindow = cmp.Or(cfg.IdempotencyWindow, 24*time.Hour)
	return &Queue{redis: client, client: newProducer(client), cfg: cfg, open: new(atomic.Bool)}
}

// With returns a queue that hands over with these options instead of the configured ones.
func (q *Queue) With(o Options) *Queue {
	other := *q
	other.cfg.Options = o
	other.open = new(atomic.Bool)
	return &other
}

// Connect is a mailer.Config.Connect: it returns the queue itself. A user name and
// password for one call are refused, for credentials never enter Redis.
func (q *Queue) Connect(c mailer.Connection) (mailer.Backend, error) {
	if c.Username != "" || c.Password != "" {
		return nil, errors.New("tasks: a queue takes no auth_user or auth_password: configure them where the worker runs")
	}
	if c.Using != "" {
		return q.Using(c.Using)
	}
	return q, nil
}

// Open checks that Redis answers.
func (q *Queue) Open(ctx context.Context) (opened bool, err error) {
	if q.open.Load() {
		return false, nil
	}
	if err := q.redis.Ping(ctx).Err(); err != nil {
		return false, unavailable(err)
	}
	return q.open.CompareAndSwap(false, true), nil
}

// Close lets go of the queue. The Redis client stays open: it is the caller's.
func (q *Queue) Close() error {
	q.open.Store(false)
	return nil
}

// SendMessages hands the messages over. Many of them travel as one task, if the options
// let them: see QueueConfig.MassSize. Message-ID and Date are fixed here. A message without
// recipients is not queued and is no error. When Redis cannot be reached the rest of
// the batch is not tried.
func (q *Queue) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, q, messages)
}

// SendBatch implements mailer.BatchSender. The Reply of a Result is the ID of the message's
// task, or its own ID in a task of many: Cancel takes either. Begin is asked when a message
// is added to its task.
func (q *Queue) SendBatch(ctx context.Context, batch mailer.Batch) {
	b := newBulk(q, batch.Report)
	for i, m := range batch.Messages {
		if b.down != nil {
			b.tell(i, mailer.Result{Err: b.down})
			continue
		}
		p, r := q.prepare(m)
		if p != nil && batch.Begin != nil {
			if err := batch.Begin(i); err != nil {
				p, r = nil, mailer.Result{Err: err}
			}
		}
		switch {
		case p == nil:
			b.tell(i, r)
		case q.cfg.MassSize == 1 || q.cfg.Options.handedOnce():
			b.report(i, q.handOver(ctx, p))
		default:
			b.add(ctx, i, p)
		}
	}
	b.flush(ctx)
}

// Enqueue hands one message over and returns the ID of its task. The ID is empty if
// the message has no recipients.
func (q *Queue) Enqueue(ctx context.Context, m *mailer.EmailMessage) (taskID string, err error) {
	p, r := q.prepare(m)
	if p != nil {
		r = q.handOver(ctx, p)
	}
	return r.Reply, r.Err
}

// prepare makes the payload of a message that may be handed over. For one that may not,
// or need not, it is nil.
func (q *Queue) prepare(m *mailer.EmailMessage) (*wire.Payload, mailer.Result) {
	o := q.cfg.Options
	if err := cmp.Or(o.Validate(), q.checkMailer(o.Using)); err != nil {
		return nil, mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}}
	}
	due := o.due(time.Now())
	m = q.complete(m, due)
	// The size comes first: what is too big is not worth the work of looking at all of it.
	err := q.CheckSize(m)
	if err == nil {
		err = m.Validate()
	}
	if err != nil {
		return nil, mailer.Result{Err: err}
	}
	only := m.OnlyTo()
	if only != nil {
		envelope, err := m.Envelope()
		if err != nil {
			return nil, mailer.Result{Err: err}
		}
		only = envelope.To
	}
	if len(only) == 0 && (only != nil || len(m.Recipients()) == 0) {
		return nil, mailer.Result{Skipped: true}
	}
	p := &wire.Payload{
		Meta: wire.Meta{
			Using: o.Using, DueAt: due.UTC().Truncate(time.Millisecond), Recipients: only,
			AtMostOnce: o.AtMostOnce, KeepResult: o.Retention > 0,
		},
		Message: m,
	}
	if !o.Deadline.IsZero() {
		p.Deadline = new(o.Deadline.UTC())
	}
	p.SetAside(q.cfg.AttachmentThreshold, hashOf)
	return p, mailer.Result{}
}

// complete fills in what the author left out. A scheduled mail is dated to its due time.
func (q *Queue) complete(m *mailer.EmailMessage, due time.Time) *mailer.EmailMessage {
	o := q.cfg.Options
	if scheduled := !o.ProcessAt.IsZero() || o.ProcessIn != 0; scheduled && m.Date.IsZero() {
		c := *m
		c.Date = due.UTC().Truncate(time.Second)
		if q.cfg.Defaults.LocalTime {
			c.Date = c.Date.Local()
		}
		m = &c
	}
	return m.WithDefaults(q.cfg.Defaults)
}

// taskOptions are asynq's options of a task in the given queue.
func (q *Queue) taskOptions(queue string, due time.Time) []asynq.Option {
	o := q.cfg.Options
	maxRetry := DefaultMaxRetry
	if o.MaxRetry != nil {
		maxRetry = *o.MaxRetry
	}
	opts := []asynq.Option{asynq.MaxRetry(maxRetry + spareRetry), asynq.Timeout(q.cfg.TaskTimeout), asynq.ProcessAt(due), asynq.Queue(queue)}
	if kept := q.kept(o); kept > 0 {
		opts = append(opts, asynq.Retention(kept))
	}
	return opts
}

// enqueue puts one task under the given ID into Redis. That the ID is there already
// is success: only an earlier try of the same hand-over, whose reply was lost, can
// have put it there.
func enqueue(ctx context.Context, client *producer, p *wire.Payload, id string, opts ...asynq.Option) error {
	err := put(ctx, client, p, id, opts...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// put is enqueue, with asynq's ErrTaskIDConflict if the ID is there already.
func put(ctx context.Context, client *producer, p *wire.Payload, id string, opts ...asynq.Option) error {
	p, err := client.hold(ctx, p, taskKey(queueOf(opts), id))
	if err != nil {
		return err
	}
	data, err := p.Encode()
	if err != nil {
		return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskType, data, p.Headers), id, opts...)
}

func putTask(ctx context.Context, client *producer, task *asynq.Task, id string, opts ...asynq.Option) error {
	_, err := client.EnqueueContext(ctx, task, append(opts, asynq.TaskID(id))...)
	if err == nil || errors.Is(err, asynq.ErrTaskIDConflict) {
		return err
	}
	return unavailable(err)
}

// queueOf is the queue that asynq's options name.
func queueOf(opts []asynq.Option) string {
	for _, o := range opts {
		if name, ok := o.Value().(string); ok && o.Type() == asynq.QueueOpt {
			return name
		}
	}
	return "default"
}

// unavailable is the error of a Redis that cannot be reached or refuses to write.
func unavailable(err error) error { return redisconn.Unavailable(err) }
