// Package letters is the messages that have failed: dead letters, and those that will be tried again. It lists them, tells why they
// failed, and does what people want done with them.
package letters

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// A dead letter is an archived task of asynq, so asynqmon shows it. But asynq drops
// archived tasks without a word: all but the newest 10,000 of a queue, and those older
// than 90 days, whenever it archives another. So before a worker archives one it
// moves the oldest out of asynq's reach, into a sorted set of ours beside the
// archive. The task's record stays where it is; only the list that names it changes.

func archiveKey(queue string) string { return "asynq:{" + queue + "}:archived" }

func pendingKey(queue string) string { return "asynq:{" + queue + "}:pending" }

// Rescue comes before a task is archived. It moves the dead letters of its queue that asynq
// would soon drop, and notes the whole reason, for asynq gets it without addresses.
func Rescue(ctx context.Context, client redis.UniversalClient, queue, id, reason string) error {
	if err := asynqbatch.MakeRoom(ctx, client, queue, asynqbatch.TaskKey(queue, id), reason); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// DeadLetters is the way to the messages that could not be delivered.
type DeadLetters struct {
	redis     redis.UniversalClient
	client    *producer.Producer
	inspector *asynq.Inspector
}

// NewDeadLetters returns the dead letters in the given Redis, which it does not close.
func NewDeadLetters(client redis.UniversalClient) *DeadLetters {
	return &DeadLetters{
		redis: client, client: producer.New(client), inspector: asynq.NewInspectorFromRedisClient(client),
	}
}

// Queues returns the names of all queues, sorted, as asynq has them: "default", and
// "marketing.default" for the mail of the named mailer marketing.
func (d *DeadLetters) Queues() ([]string, error) {
	queues, err := d.inspector.Queues()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(queues)
	return queues, nil
}

// Count returns how many dead letters a queue has: the number to alarm on.
func (d *DeadLetters) Count(ctx context.Context, queue string) (int, error) {
	sum := 0
	for _, key := range []string{wire.DeadKey(queue), archiveKey(queue)} {
		n, err := d.redis.ZCard(ctx, key).Result()
		if err != nil {
			return 0, redisconn.Unavailable(err)
		}
		sum += int(n)
	}
	return sum, nil
}

// ErrNotDead reports that there is no dead letter with an ID.
var ErrNotDead = errors.New("no such dead letter")

// Each yields the dead letters that a filter means, oldest first in each queue, as Summary has them, and asks Redis for
// them page by page: however many there are, few are in memory. Letters may be deleted or replayed meanwhile, by the
// caller too; those that become dead letters meanwhile are not yielded. With an error it ends.
func (d *DeadLetters) Each(ctx context.Context, f Filter) iter.Seq2[*DeadLetter, error] {
	return d.list().each(ctx, f, true)
}

// Survey counts the dead letters that a filter means, by reason, and has the newest of them: so many as are asked for.
func (d *DeadLetters) Survey(ctx context.Context, f Filter, newest int) (Survey, error) {
	return d.list().survey(ctx, f, newest)
}

func (d *DeadLetters) list() list {
	return list{redis: d.redis, contents: d.client.Contents, state: stateArchived, places: d.places}
}

// places yields where the dead letters of a queue are, oldest first.
func (d *DeadLetters) places(ctx context.Context, queue string) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		// The oldest of asynq's archive may move to our set at any time. So what is in the archive, which asynq keeps
		// small, comes first into memory, and is yielded last.
		recent, err := d.redis.ZRangeWithScores(ctx, archiveKey(queue), 0, -1).Result()
		if err != nil {
			yield(place{}, redisconn.Unavailable(err))
			return
		}
		later := make(map[string]bool, len(recent))
		for _, z := range recent {
			later[member(z)] = true
		}
		for z, err := range eachMember(ctx, d.redis, wire.DeadKey(queue)) {
			if err == nil && later[member(z)] {
				continue
			}
			if !yield(place{queue, member(z), z.Score}, err) || err != nil {
				return
			}
		}
		for _, z := range recent {
			if !yield(place{queue, member(z), z.Score}, nil) {
				return
			}
		}
	}
}

// IDs returns the dead letters of a queue by the IDs of their tasks, oldest first.
func (d *DeadLetters) IDs(ctx context.Context, queue string) ([]string, error) {
	var ids []string
	for id, err := range d.EachID(ctx, queue) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// EachID yields the IDs of a queue's dead letters as Each yields the letters.
func (d *DeadLetters) EachID(ctx context.Context, queue string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for at, err := range d.places(ctx, queue) {
			if !yield(at.id, err) || err != nil {
				return
			}
		}
	}
}

// Get returns a dead letter with its whole message and its history. The error is ErrNotDead if it was
// replayed or deleted.
func (d *DeadLetters) Get(queue, id string) (*DeadLetter, error) {
	l, err := d.Summary(queue, id)
	if err != nil {
		return nil, err
	}
	return l, d.list().complete(context.Background(), l)
}

// Summary is Get for lists: what is stored beside the queue, the attachments and bodies
// over QueueConfig.AttachmentThreshold, stays there and is empty in the message. Of
// Raw there is the beginning, which has the subject. It has no history.
func (d *DeadLetters) Summary(queue, id string) (*DeadLetter, error) {
	ctx := context.Background()
	l, err := d.list().one(ctx, place{queue: queue, id: id})
	switch {
	case err != nil:
		return nil, err
	case l == nil:
		return nil, fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	case l.At.Unix() == 0: // it was never tried
		l.At, err = d.archivedAt(ctx, queue, id)
	}
	return l, err
}

// archivedAt is when a task became a dead letter.
func (d *DeadLetters) archivedAt(ctx context.Context, queue, id string) (time.Time, error) {
	for _, key := range []string{archiveKey(queue), wire.DeadKey(queue)} {
		at, err := d.redis.ZScore(ctx, key, id).Result()
		switch {
		case err == nil:
			return time.Unix(int64(at), 0), nil
		case !errors.Is(err, redis.Nil):
			return time.Time{}, redisconn.Unavailable(err)
		}
	}
	return time.Time{}, nil
}
