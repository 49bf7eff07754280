package tasks

import (
	"context"
	"errors"
	"slices"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/queuewatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// producer enqueues tasks, and stores what does not ride in them.
type producer struct {
	*asynq.Client
	contents contents
	hints    *queuewatch.Hints
}

func newProducer(client redis.UniversalClient) *producer {
	return &producer{asynq.NewClientFromRedisClient(client), newContents(client, 0, zerolog.Nop()), queuewatch.NewHints(client)}
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
	p, err := client.hold(ctx, p, id, opts)
	if err != nil {
		return err
	}
	data, err := p.Encode()
	if err != nil {
		return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskType, data, p.Headers), id, opts...)
}

// putTask puts a task into Redis. The error is of class Unknown if that may have been done, which only a client of
// redisconn.ForProgram says, and of class Unavailable otherwise.
func putTask(ctx context.Context, client *producer, task *asynq.Task, id string, opts ...asynq.Option) error {
	watched, handover := redisconn.Watch(ctx)
	info, err := client.EnqueueContext(watched, task, append(opts, asynq.TaskID(id))...)
	if err == nil {
		client.hints.Queued(ctx, info.Queue, info.State == asynq.TaskStatePending)
	}
	if err == nil || errors.Is(err, asynq.ErrTaskIDConflict) {
		return err
	}
	return handover.Failed(ctx, err)
}

// hold stores the big contents of a message for the task that it is to have.
func (c *producer) hold(ctx context.Context, p *wire.Payload, id string, opts []asynq.Option) (*wire.Payload, error) {
	held, err := c.contents.hold(ctx, p, asynqbatch.TaskKey(queueOf(opts), id))
	if mailer.ClassOf(err) == mailer.Unavailable {
		return nil, redisconn.NotQueued(ctx, err)
	}
	return held, err
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

// putBulk enqueues messages as one task.
func putBulk(ctx context.Context, client *producer, payloads []*wire.Payload, id string, opts ...asynq.Option) error {
	var lines []byte
	for i, p := range payloads {
		p, err := client.hold(ctx, p, id, opts)
		if err != nil {
			return err
		}
		if lines, err = p.Append(lines); err != nil {
			return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
		}
		lines = append(lines, '\n')
		if i == 0 {
			lines = slices.Grow(lines, len(lines)*len(payloads)) // the others are much the same
		}
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskTypeBulk, lines, payloads[0].Headers), id, opts...)
}
