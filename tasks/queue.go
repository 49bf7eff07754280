package tasks

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// QueueConfig configures a Queue. The zero value is usable.
type QueueConfig struct {
	Defaults mailer.Defaults // what a message may leave out, filled in at hand-over

	// TaskTimeout is the time-out that asynq's tools show of a task, in whole seconds: 30 minutes if zero.
	// A Worker does not obey it: how long it keeps a task is its own TaskTimeout's to say.
	TaskTimeout time.Duration

	// Mailers are the named mailers that Using may name. If nil, any name is passed on,
	// and it is the worker that knows them.
	Mailers []string

	// AttachmentThreshold is how many bytes an attachment may have to ride in the payload,
	// or a body, an alternative or a raw message: 64,000 if zero. Bigger ones are stored
	// beside the queue, each content once. If negative, all ride, and a worker's memory is
	// bounded by nothing but its number of tasks.
	AttachmentThreshold int

	// MaxMessageSize is how many bytes a message may have as it is sent: no limit if zero.
	MaxMessageSize int

	// IdempotencyWindow is how long after its message was sent an idempotency key is
	// remembered: 24 hours if zero.
	IdempotencyWindow time.Duration

	// BulkSize is how many messages that are handed over together travel in one task, at
	// most: 100 if zero. If 1, each has its own.
	BulkSize int

	// Shards is in how many parts, each in a place of its own, the queues are, so that the
	// masters of a Redis Cluster share the work: in one piece if zero or 1. It may
	// grow, if WorkerConfig.Shards grows first. What is handed over once (Options.IdempotencyKey,
	// Options.Unique) is in no part but in the whole queue, so that a key is the same key for all.
	Shards int

	Tracer Tracer // no traces if nil

	// Events has it written for each message and recipient that Redis has it. WorkerConfig.Events says of them.
	Events EventLog

	Options Options // for every message, unless With gives others
}

// Queue is a mailer.Backend that hands messages to the workers: each message becomes
// an asynq task, and "accepted" means that Redis has it. Unlike other backends it may
// be used by several goroutines.
type Queue struct {
	redis  redis.UniversalClient
	client *producer.Producer
	cfg    QueueConfig
	open   *atomic.Bool
	queues *knownQueues
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
	cfg.BulkSize = cmp.Or(cfg.BulkSize, 100)
	cfg.IdempotencyWindow = cmp.Or(cfg.IdempotencyWindow, 24*time.Hour)
	enqueuer, client := producer.ForProgram(client)
	enqueuer.Events = cfg.Events.config()
	return &Queue{redis: client, client: enqueuer, cfg: cfg, open: new(atomic.Bool), queues: new(knownQueues)}
}

// With returns a queue that hands over with these options. What they leave open is as q has it.
func (q *Queue) With(o Options) *Queue {
	o = o.Or(q.cfg.Options)
	return q.only(o)
}

// only is With, where nothing is as q has it.
func (q *Queue) only(o Options) *Queue {
	if o.Using == handover.DefaultMailer {
		o.Using = ""
	}
	other := *q
	other.cfg.Options = o
	other.open = new(atomic.Bool)
	return &other
}

// Using returns the queue for messages that a named mailer is to deliver, "" being the
// default one. The payload carries the name alone; host and password are the worker's.
// A name that QueueConfig.Mailers lacks is an UnknownMailerError.
func (q *Queue) Using(name string) (mailer.Backend, error) {
	o := q.cfg.Options
	o.Using = name
	other := q.only(o)
	if err := q.checkMailer(other.cfg.Options.Using); err != nil {
		return nil, err
	}
	return other, nil
}

func (q *Queue) checkMailer(name string) error {
	if name == "" || q.cfg.Mailers == nil || slices.Contains(q.cfg.Mailers, name) {
		return nil
	}
	return &UnknownMailerError{Name: name, Known: q.cfg.Mailers}
}

// queueOf is the queue of asynq's that the task with an ID waits in. A named mailer has
// queues of its own. A producer that does not know the mailers puts the message
// into the plain queue, from which a worker forwards it. What is handed over once is in no part of
// the queue but in the whole one, whose name all programs know.
func (q *Queue) queueOf(id string) wire.QueueName {
	n := wire.QueueName{Queue: cmp.Or(q.cfg.Options.Queue, "default")}
	if !handover.IsOnceID(id) {
		n.Shard = wire.ShardOf(id, q.cfg.Shards)
	}
	if q.cfg.Mailers != nil {
		n.Mailer = q.cfg.Options.Using
	}
	return n
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
		return false, redisconn.Unavailable(err)
	}
	return q.open.CompareAndSwap(false, true), nil
}

// Close lets go of the queue. The Redis client stays open: it is the caller's.
func (q *Queue) Close() error {
	q.open.Store(false)
	return nil
}

// SendMessages hands the messages over. Many of them travel as one task, if the options
// let them: see QueueConfig.BulkSize. With a task each they share round trips. Message-ID and Date are fixed here. A message without
// recipients is not queued and is no error. When Redis cannot be reached the rest of
// the batch is not tried. Errors and the end of ctx are as Enqueue says; messages that travel together share an error.
func (q *Queue) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, q, messages)
}

// SendBatch implements mailer.BatchSender. The options of the batch come before those of the queue, as With says. The
// TaskID of a Result, which is its Reply too, is the ID of the message's task, or its own ID in a task of many: Cancel
// takes either. Begin and Commit are asked when a
// message is added to its task.
func (q *Queue) SendBatch(ctx context.Context, batch mailer.Batch) {
	q = q.With(batch.Options)
	b := &bulk{results: batch.Report, many: func(payloads []*wire.Payload, id string) error { return q.handOverMany(ctx, payloads, id) }}
	all := q.together(ctx, b)
	b.one = func(i int, p *wire.Payload) {
		if !q.writesOnce(p) {
			b.answered(i, q.handOver(ctx, p))
			return
		}
		if ready, r := q.ready(ctx, p); r.Err != nil {
			b.answered(i, r)
		} else {
			all.add(ready, mailer.Report{Index: i, Result: r})
		}
	}
	q.gather(batch, b)
	all.flush()
}

// gather makes tasks of the messages of a batch, whose options the queue has.
func (q *Queue) gather(batch mailer.Batch, b *bulk) {
	b.most, b.results = q.cfg.BulkSize, batch.Report
	for i, m := range batch.Messages {
		if b.down != nil {
			b.report(i, mailer.Result{Err: b.down})
			continue
		}
		p, r := q.prepare(m)
		if p != nil {
			p, r = q.ask(batch, i, p)
		}
		switch {
		case p == nil:
			b.report(i, r)
		case q.cfg.BulkSize == 1 || handover.IsOnce(q.cfg.Options):
			b.one(i, p)
		default:
			b.add(i, p)
		}
	}
	b.flush()
}

// writesOnce reports whether a message is handed over with one write to Redis, which is asked for nothing before: then its
// task can be made before.
func (q *Queue) writesOnce(p *wire.Payload) bool {
	return len(p.Blobs) == 0 && !handover.IsOnce(q.cfg.Options) && q.cfg.Tracer == nil
}

// ready makes the task of a message that is handed over with one write, and puts it nowhere.
func (q *Queue) ready(ctx context.Context, p *wire.Payload) (*producer.Ready, mailer.Result) {
	ctx, ready := producer.Readied(ctx)
	r := q.handOver(ctx, p)
	return ready, r
}

// together gathers tasks that are ready, for b, whose reports are told of them.
func (q *Queue) together(ctx context.Context, b *bulk) *together {
	return &together{report: b.results, put: func(list []*producer.Ready) (err error) {
		switch {
		case b.down != nil:
			return b.down
		case len(list) == 1: // which may share a round trip with those of other goroutines
			if err = list[0].Put(ctx); errors.Is(err, asynq.ErrTaskIDConflict) {
				err = nil // it was put there, and the answer got lost
			}
		default:
			err = q.client.PutAll(ctx, list)
		}
		b.noteDown(err)
		return err
	}}
}

// ask asks whether a message is to be handed over that may be, and as what.
func (q *Queue) ask(batch mailer.Batch, i int, p *wire.Payload) (*wire.Payload, mailer.Result) {
	if batch.Begin != nil {
		m, err := batch.Begin(i)
		if err != nil {
			return nil, mailer.Result{Err: err}
		}
		if m != batch.Messages[i] {
			var r mailer.Result
			if p, r = q.prepare(m); p == nil {
				return nil, r
			}
		}
	}
	if batch.Commit != nil {
		if err := batch.Commit(i); err != nil {
			return nil, mailer.Result{Err: err}
		}
	}
	return p, mailer.Result{}
}

// Enqueue hands one message over and returns the ID of its task. The ID is empty if
// the message has no recipients.
//
// It returns when ctx ends, its deadline or otherwise. The class of an error (mailer.ClassOf) then says whether the
// message may have been queued: Unavailable means that it was not, and Unknown that it may have been, or still may be, for
// Redis was asked and has not answered. To hand it over again is safe after Unavailable, and after Unknown if it has an
// idempotency key.
func (q *Queue) Enqueue(ctx context.Context, m *mailer.EmailMessage) (taskID string, err error) {
	p, r := q.prepare(m)
	if p != nil {
		r = q.handOver(ctx, p)
	}
	return r.TaskID, r.Err
}

// prepare makes the payload of a message that may be handed over. For one that may not,
// or need not, it is nil.
func (q *Queue) prepare(m *mailer.EmailMessage) (*wire.Payload, mailer.Result) {
	o := q.cfg.Options
	if err := cmp.Or(o.Validate(), q.checkMailer(o.Using)); err != nil {
		return nil, mailer.Result{Err: handover.Refused(err)}
	}
	p, err := handover.Prepare(m, o, q.cfg.Defaults, time.Now(), q.CheckSize)
	if p == nil {
		return nil, mailer.Result{Err: err, Skipped: err == nil}
	}
	p.SetAside(q.cfg.AttachmentThreshold, blobstore.Hash)
	return p, mailer.Result{}
}

// CheckSize refuses a message that is bigger than QueueConfig.MaxMessageSize, as Enqueue does: a
// mailer.InvalidMessageError that names its biggest field. What is sent counts, as it is
// sent, and what is in the envelope alone.
func (q *Queue) CheckSize(m *mailer.EmailMessage) error {
	if q.cfg.MaxMessageSize <= 0 {
		return nil
	}
	return weight.Check(m, q.cfg.MaxMessageSize)
}

// handOver enqueues a task and returns its ID. With a key the ID derives from that, and
// may be the one of the task that an earlier hand-over of the same message made.
func (q *Queue) handOver(ctx context.Context, p *wire.Payload) mailer.Result {
	var id string
	err := q.client.Fit(ctx, p)
	if err != nil {
		return mailer.Result{Err: err}
	}
	if handover.IsOnce(q.cfg.Options) {
		id, err = q.handOverOnce(ctx, p)
	} else {
		id = rand.Text()
		name := q.queueOf(id)
		err = traced(ctx, q.cfg.Tracer, name.Queue, id, func(ctx context.Context, headers map[string]string) error {
			p.Headers = headers
			return q.client.Enqueue(ctx, p, id, q.taskOptions(name.String(), p.DueAt)...)
		})
	}
	if err != nil {
		return mailer.Result{Err: err}
	}
	return mailer.Result{Reply: id, TaskID: id}
}

func (q *Queue) handOverOnce(ctx context.Context, p *wire.Payload) (string, error) {
	o := q.cfg.Options
	id, err := handover.Once(p, o)
	if err != nil {
		return "", err
	}
	name := q.queueOf(id)
	others, err := q.elsewhere(ctx, name)
	if err != nil {
		return "", redisconn.NotQueued(ctx, err)
	}
	opts := q.taskOptions(name.String(), p.DueAt)
	t := once.Task{
		Redis: q.redis, Place: name, Others: others, ID: id, Using: o.Using, Key: o.IdempotencyKey, Digest: p.Digest,
		Held: q.heldFor(), Kept: untilDue(p.DueAt) + once.ReplayedFor + handover.Kept(o, q.cfg.IdempotencyWindow),
	}
	look := len(p.Blobs) > 0 // big attachments need not travel twice
	id, err = t.HandOver(ctx, look, func(id string) error {
		return traced(ctx, q.cfg.Tracer, name.Queue, id, func(ctx context.Context, headers map[string]string) error {
			p.Headers = headers
			return q.client.Put(ctx, p, id, opts...)
		})
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// KeyKept is how long, from now on, something is to be kept that belongs to the idempotency key of a message which is due then: longer than the key is
// remembered, unless the message is put off by more than 30 days.
func (q *Queue) KeyKept(due time.Time) time.Duration {
	return untilDue(due) + once.ReplayedFor + q.cfg.IdempotencyWindow
}

// untilDue is how long a message waits, and a century at most: more can be added to that without an overflow.
func untilDue(due time.Time) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return min(max(time.Until(due), 0), century)
}

// elsewhere are the other queues that may have the task of a message that is to be handed over once:
// parts of the queue, from the time when such tasks were in these, and that of the mailer, or of those who do not know it.
func (q *Queue) elsewhere(ctx context.Context, place wire.QueueName) ([]wire.QueueName, error) {
	using := q.cfg.Options.Using
	others, err := q.queues.matching(ctx, q.redis, func(name wire.QueueName) bool {
		return name.Queue == place.Queue && (name.Mailer == using || name.Mailer == "") && name != place
	})
	if using != "" && place.Mailer == "" {
		to := place
		if to.Mailer = using; !slices.Contains(others, to) {
			others = append(others, to)
		}
	}
	return others, err
}

// knownQueues are the names of all queues, which seldom change.
type knownQueues struct {
	mu    sync.Mutex
	names []wire.QueueName
	asked time.Time
}

// knownFor is how long they are not asked for again.
const knownFor = time.Minute

// matching returns those that match, but none of bulk mail.
func (k *knownQueues) matching(ctx context.Context, client redis.UniversalClient, match func(wire.QueueName) bool) ([]wire.QueueName, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked.IsZero() || time.Since(k.asked) > knownFor {
		names, err := find.Queues(ctx, client)
		if err != nil {
			return nil, err
		}
		k.names, k.asked = names, time.Now()
	}
	var names []wire.QueueName
	for _, name := range k.names {
		if !name.Bulk && match(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// handOverMany enqueues messages as one task under the given ID. That the ID is there
// already is success, as for enqueue.
func (q *Queue) handOverMany(ctx context.Context, payloads []*wire.Payload, id string) error {
	for _, p := range payloads {
		if err := q.client.Fit(ctx, p); err != nil {
			return err
		}
	}
	name := q.queueOf(id)
	name.Bulk = true
	err := traced(ctx, q.cfg.Tracer, name.Queue, id, func(ctx context.Context, headers map[string]string) error {
		payloads[0].Headers = headers
		return q.client.PutBulk(ctx, payloads, id, q.taskOptions(name.String(), payloads[0].DueAt)...)
	})
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// heldFor is how long a worker can still have a task that was cancelled: by its own settings, which a program
// does not know, and none holds one for a day.
func (q *Queue) heldFor() time.Duration { return max(2*q.cfg.TaskTimeout, once.HeldAtMost) }

// taskOptions are asynq's options of a task in the given queue.
func (q *Queue) taskOptions(queue string, due time.Time) []asynq.Option {
	o := q.cfg.Options
	maxRetry := DefaultMaxRetry
	if o.MaxRetry != nil {
		maxRetry = *o.MaxRetry
	}
	opts := []asynq.Option{asynq.MaxRetry(maxRetry + spareRetry), asynq.Timeout(q.cfg.TaskTimeout), asynq.ProcessAt(wire.Due(due)), asynq.Queue(queue)}
	if kept := handover.Kept(o, q.cfg.IdempotencyWindow); kept > 0 {
		opts = append(opts, asynq.Retention(kept))
	}
	return opts
}
