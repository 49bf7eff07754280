package tasks

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/blobstore"
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
	codec    wire.Codec
	versions versions
}

func newProducer(client redis.UniversalClient) *producer {
	return &producer{
		Client: asynq.NewClientFromRedisClient(client), contents: newContents(client, 0, zerolog.Nop()),
		hints: queuewatch.NewHints(client), versions: versions{redis: client},
	}
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
	data, err := client.encode(ctx, p)
	if err != nil {
		return err
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskType, data, p.Headers), id, opts...)
}

// encode returns a payload as the workers can read it. Most mails are too short to be compressed, and the workers are not asked about.
func (c *producer) encode(ctx context.Context, p *wire.Payload) ([]byte, error) {
	data, err := c.codec.Encode(p, func() int { return c.versions.reads(ctx).Lowest })
	if err != nil {
		return nil, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
	}
	return data, nil
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
	held := make([]*wire.Payload, len(payloads))
	for i, p := range payloads {
		var err error
		if held[i], err = client.hold(ctx, p, id, opts); err != nil {
			return err
		}
	}
	data, err := client.codec.EncodeMany(held, client.versions.reads(ctx).Lowest)
	if err != nil {
		return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskTypeBulk, data, payloads[0].Headers), id, opts...)
}

// contents are the big contents of messages: those that wait beside the queue, and are named
// by the blobs of a payload.
type contents struct{ store *blobstore.Store }

// newContents returns the contents in a Redis, of which so many bytes stay in memory after
// their use.
func newContents(client redis.UniversalClient, cacheSize int, log zerolog.Logger) contents {
	return contents{blobstore.New(client, cacheSize, log)}
}

// hold makes sure of the contents of a payload for the task at taskKey, and returns the
// payload with the reference in it.
func (c contents) hold(ctx context.Context, p *wire.Payload, taskKey string) (*wire.Payload, error) {
	if len(p.Blobs) == 0 {
		return p, nil
	}
	held := *p
	held.BlobRef = rand.Text()[:10]
	// The caller gets its message back when ctx ends, though Redis may not have all of it yet: so what is written is a
	// copy, and none is made after that.
	var mu sync.Mutex
	over := false
	list := make([]blobstore.Content, len(p.Blobs))
	for i, b := range p.Blobs {
		list[i] = blobstore.Content{Blob: blobOf(b), Bytes: func() []byte {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return nil // which is not stored: ctx has ended
			}
			return bytes.Clone(b.Of(p.Message))
		}}
	}
	_, err := redisconn.Within(ctx, func() (struct{}, error) {
		return struct{}{}, c.store.Hold(ctx, blobstore.Ref(taskKey, held.BlobRef), list)
	})
	mu.Lock()
	over = true
	mu.Unlock()
	var fault *blobstore.FaultError
	if errors.As(err, &fault) {
		return nil, lostPart(p, fault)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = redisconn.Unavailable(err)
	}
	if err != nil {
		return nil, err
	}
	return &held, nil
}

// fill puts the contents of its blobs into a payload's message. That one is lost is an
// error of class Permanent. While Redis is away it waits until ctx ends, and then the
// class is Unavailable.
func (c contents) fill(ctx context.Context, p *wire.Payload) error {
	if len(p.Blobs) == 0 {
		return nil
	}
	found := map[wire.Blob][]byte{}
	for _, b := range p.Blobs {
		content, err := c.store.Get(ctx, blobOf(b))
		var fault *blobstore.FaultError
		if errors.As(err, &fault) {
			return lostPart(p, fault)
		}
		if err != nil {
			return err
		}
		found[b] = content
	}
	p.Message = p.WithContents(func(b wire.Blob) []byte { return found[b] })
	return nil
}

// ended notes that the task at taskKey needs its contents no more, once asynq has ended it.
func (c contents) ended(taskKey string, p *wire.Payload) {
	if p != nil {
		c.store.Ended(blobstore.Ref(taskKey, p.BlobRef), p.Hashes())
	}
}

// blobOf is a blob as the store has it.
func blobOf(b wire.Blob) blobstore.Blob { return blobstore.Blob{Hash: b.Hash, Size: b.Size} }

// lostPart is the error of a message of which a content is lost.
func lostPart(p *wire.Payload, fault *blobstore.FaultError) error {
	for _, b := range p.Blobs {
		if blobOf(b) == fault.Blob {
			return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: lost(p, b, fault)}
		}
	}
	return fault
}

// lost says of which part of a message the content is lost.
func lost(p *wire.Payload, b wire.Blob, fault error) error {
	return fmt.Errorf("%s: %w", b.Name(p.Message), fault)
}
