// Package producer puts tasks into the queues, and what is too big to ride in them beside the queues.
package producer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/queuewatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Producer enqueues tasks, and stores what does not ride in them.
type Producer struct {
	Contents Contents
	Hints    *queuewatch.Hints
	Events   events.Config // that a message is queued is written where these are kept
	Moves    bool          // the Producer is a worker's, whose messages are queued already, and go on

	redis    redis.UniversalClient
	asynq    *asynq.Client
	known    sync.Map // the names of queues that PutAll has added to asynq's set of all
	codec    wire.Codec
	versions versions
}

// New returns a Producer in the given Redis.
func New(client redis.UniversalClient) *Producer {
	return newVia(client, asynqbatch.NewEnqueuer(client, nil))
}

// ForProgram returns a Producer for a program that hands mail over, and the client that it uses: see redisconn.ForProgram.
func ForProgram(client redis.UniversalClient) (*Producer, redis.UniversalClient) {
	client = redisconn.ForProgram(client, func(client redis.UniversalClient) redis.UniversalClient {
		return asynqbatch.NewEnqueuer(client, redisconn.Calls{})
	})
	return newVia(client, client), client
}

// newVia returns a Producer that puts tasks into Redis by an enqueuer.
func newVia(client, enqueuer redis.UniversalClient) *Producer {
	return &Producer{
		Contents: NewContents(client, 0, zerolog.Nop()), Hints: queuewatch.NewHints(client), redis: enqueuer,
		asynq: asynq.NewClientFromRedisClient(enqueuer), versions: versions{redis: client},
	}
}

// Enqueue puts one task under the given ID into Redis. That the ID is there already
// is success: only an earlier try of the same hand-over, whose reply was lost, can
// have put it there.
func (c *Producer) Enqueue(ctx context.Context, p *wire.Payload, id string, opts ...asynq.Option) error {
	err := c.Put(ctx, p, id, opts...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// Put is Enqueue, with asynq's ErrTaskIDConflict if the ID is there already.
func (c *Producer) Put(ctx context.Context, p *wire.Payload, id string, opts ...asynq.Option) error {
	p, err := c.hold(ctx, p, id, opts)
	if err != nil {
		return err
	}
	data, err := c.Encode(ctx, p)
	if err != nil {
		return err
	}
	return c.put(ctx, asynq.NewTaskWithHeaders(wire.TaskType, data, p.Headers), id, c.queued(nil, p, id), opts...)
}

// queued appends the events that a message is queued, if there are to be any.
func (c *Producer) queued(data []byte, p *wire.Payload, id string) []byte {
	if !c.Events.On() || c.Moves {
		return nil
	}
	return events.Append(data, events.Queued, events.Of(p, id, 0), "", events.Recipients(p)...)
}

// Encode returns a payload as the workers can read it. Most mails are too short to be compressed, and the workers are not asked about.
func (c *Producer) Encode(ctx context.Context, p *wire.Payload) ([]byte, error) {
	data, err := c.codec.Encode(p, func() int { return c.versions.reads(ctx).Lowest })
	return data, unwritten(err)
}

// EncodeMany is Encode for a bulk task.
func (c *Producer) EncodeMany(ctx context.Context, payloads []*wire.Payload) ([]byte, error) {
	data, err := c.codec.EncodeMany(payloads, c.versions.reads(ctx).Lowest)
	return data, unwritten(err)
}

// unwritten is the error of a message that cannot be written.
func unwritten(err error) error {
	if err == nil {
		return nil
	}
	return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
}

// errOldWorkers is the error of a message of a mailing that no worker knows how to pause or cancel.
var errOldWorkers = errors.New("it belongs to a mailing, and no worker is new enough to know mailings: upgrade the workers")

// Fit makes a payload that is handed over one that the workers can read, as far as that is no loss to the mail: see versions. The error, of
// class Temporary, is that they could not do what the sender of a mailing was promised.
func (c *Producer) Fit(ctx context.Context, p *wire.Payload) error {
	if p.Mailing == "" && p.Tags == nil {
		return nil
	}
	reads := c.versions.reads(ctx)
	switch {
	case reads.Lowest >= wire.Tagged, !reads.Known():
	case p.Mailing == "":
		p.Tags = nil
	case reads.Highest < wire.Tagged:
		return &mailer.SendError{Class: mailer.Temporary, Step: handover.StepQueue, Err: errOldWorkers}
	}
	return nil
}

// PutTask puts a task into Redis. The error is of class Unknown if that may have been done, which only a client of
// redisconn.ForProgram says, and of class Unavailable otherwise.
func (c *Producer) PutTask(ctx context.Context, task *asynq.Task, id string, opts ...asynq.Option) error {
	return c.put(ctx, task, id, nil, opts...)
}

// put is PutTask, with events that go with the task.
func (c *Producer) put(ctx context.Context, task *asynq.Task, id string, queued []byte, opts ...asynq.Option) error {
	if ready, ok := ctx.Value(readyKey{}).(*Ready); ok {
		ready.set(c, task, id, queued, opts)
		return nil
	}
	switch {
	case c.Moves:
		ctx = asynqbatch.GoesOn(ctx, c.Events)
	case len(queued) > 0:
		ctx = asynqbatch.WithEvents(ctx, queued, c.Events)
	}
	watched, handover := redisconn.Watch(ctx)
	info, err := c.asynq.EnqueueContext(watched, task, append(opts, asynq.TaskID(id))...)
	if err == nil {
		c.Hints.Queued(ctx, info.Queue, info.State == asynq.TaskStatePending)
	}
	if err == nil || errors.Is(err, asynq.ErrTaskIDConflict) {
		return err
	}
	return handover.Failed(ctx, err)
}

// Ready is a task that is put into Redis later.
type Ready struct {
	Put   func(ctx context.Context) error // as PutTask would have
	Size  int                             // bytes of its payload
	Queue string                          // where it may be put together with others: "" if it is not to be taken at once

	task   *asynq.Task
	id     string
	queued []byte
	opts   []asynq.Option
}

func (r *Ready) set(c *Producer, task *asynq.Task, id string, queued []byte, opts []asynq.Option) {
	r.task, r.id, r.queued, r.opts = task, id, queued, opts
	r.Size, r.Queue = len(task.Payload())+len(queued), queueOf(opts)
	if slices.ContainsFunc(opts, waits) {
		r.Queue = ""
	}
	r.Put = func(ctx context.Context) error { return c.put(ctx, task, id, queued, opts...) }
}

// waits reports whether an option says that a task is to be taken later.
func waits(o asynq.Option) bool {
	if o.Type() != asynq.ProcessAtOpt {
		return false
	}
	at, _ := o.Value().(time.Time)
	return at.After(time.Now())
}

// PutAll puts tasks of one queue into Redis in one script. All of them have the error. They have IDs that are new, and are not more than
// asynqbatch.EnqueueAll queues. It is not for a worker's Producer.
func (c *Producer) PutAll(ctx context.Context, list []*Ready) error {
	tasks, queue := make([]asynqbatch.NewTask, len(list)), list[0].Queue
	for i, r := range list {
		message, err := asynqbatch.Encode(r.task, append(r.opts, asynq.TaskID(r.id))...)
		if err != nil {
			return redisconn.NotQueued(ctx, err)
		}
		tasks[i] = asynqbatch.NewTask{ID: r.id, Message: message, Events: r.queued}
	}
	watched, handover := redisconn.Watch(ctx)
	if _, known := c.known.Load(queue); !known { // as asynq's own client does
		if err := c.redis.SAdd(watched, wire.QueuesKey, queue).Err(); err != nil {
			return handover.Failed(ctx, err)
		}
		c.known.Store(queue, true)
	}
	if err := asynqbatch.EnqueueAll(watched, c.redis, queue, tasks, c.Events); err != nil {
		return handover.Failed(ctx, err)
	}
	c.Hints.Queued(ctx, queue, true)
	return nil
}

type readyKey struct{}

// Readied returns a context in which PutTask makes a task ready, and puts none into Redis.
func Readied(ctx context.Context) (context.Context, *Ready) {
	ready := new(Ready)
	return context.WithValue(ctx, readyKey{}, ready), ready
}

// hold stores the big contents of a message for the task that it is to have.
func (c *Producer) hold(ctx context.Context, p *wire.Payload, id string, opts []asynq.Option) (*wire.Payload, error) {
	if len(p.Blobs) == 0 {
		return p, nil
	}
	held, err := c.Contents.Hold(ctx, p, asynqbatch.TaskKey(queueOf(opts), id))
	if mailer.ClassOf(err) == mailer.Unavailable {
		return nil, redisconn.NotQueued(ctx, err)
	}
	return held, err
}

// queueOf is the queue that asynq's options name.
func queueOf(opts []asynq.Option) string {
	for _, o := range opts {
		if o.Type() == asynq.QueueOpt {
			name, _ := o.Value().(string)
			return name
		}
	}
	return "default"
}

// PutBulk enqueues messages as one task.
func (c *Producer) PutBulk(ctx context.Context, payloads []*wire.Payload, id string, opts ...asynq.Option) error {
	held := make([]*wire.Payload, len(payloads))
	for i, p := range payloads {
		var err error
		if held[i], err = c.hold(ctx, p, id, opts); err != nil {
			return err
		}
	}
	data, err := c.EncodeMany(ctx, held)
	if err != nil {
		return err
	}
	var queued []byte
	for i, p := range payloads {
		queued = c.queued(queued, p, wire.MessageID(id, i))
	}
	return c.put(ctx, asynq.NewTaskWithHeaders(wire.TaskTypeBulk, data, payloads[0].Headers), id, queued, opts...)
}
