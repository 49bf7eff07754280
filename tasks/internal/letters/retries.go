package letters

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/cancel"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// Retry is a message that has failed and will be tried again.
type Retry struct {
	DeadLetter           // what is known of it, as of a dead letter
	Next       time.Time // when it is tried again
}

// next is when a message is tried again.
func (l *DeadLetter) next() time.Time { return time.Unix(int64(l.score), 0) }

// Retries is the way to the messages that wait for their next try.
type Retries struct {
	redis  redis.UniversalClient
	client *producer.Producer
	cancel cancel.Canceller
}

// ErrNoRetry reports that no message with an ID waits for its next try.
var ErrNoRetry = errors.New("no message that is to be tried again")

// NewRetries returns the messages in the given Redis, which it does not close, that wait for their next try.
func NewRetries(client redis.UniversalClient) *Retries {
	return &Retries{redis: client, client: producer.New(client), cancel: cancel.Canceller{Redis: redisconn.ForProgram(client), Held: once.HeldAtMost}}
}

// Each yields the messages that a filter means, in the order of their next tries in each queue, as DeadLetters.Each does.
func (r *Retries) Each(ctx context.Context, f Filter) iter.Seq2[*Retry, error] {
	return func(yield func(*Retry, error) bool) {
		for l, err := range r.list().each(ctx, f, true) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&Retry{*l, l.next()}, nil) {
				return
			}
		}
	}
}

// Survey counts the messages that a filter means, by reason, and has those that failed last: so many as are asked for.
func (r *Retries) Survey(ctx context.Context, f Filter, newest int) (s Survey, last []*Retry, err error) {
	s, err = r.list().survey(ctx, f, newest)
	for _, l := range s.Newest {
		last = append(last, &Retry{*l, l.next()})
	}
	return s, last, err
}

func (r *Retries) list() list {
	return list{redis: r.redis, contents: r.client.Contents, state: stateRetry, places: r.places}
}

func (r *Retries) places(ctx context.Context, queue string) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		for z, err := range eachMember(ctx, r.redis, retryKey(queue)) {
			if !yield(place{queue, member(z), z.Score}, err) || err != nil {
				return
			}
		}
	}
}

func retryKey(queue string) string { return "asynq:{" + queue + "}:retry" }

// Get returns a message with all that is in it, and its history. The error is ErrNoRetry if it waits no more.
func (r *Retries) Get(ctx context.Context, queue, id string) (*Retry, error) {
	next, err := r.redis.ZScore(ctx, retryKey(queue), id).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	l, err := r.list().one(ctx, place{queue, id, next})
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, fmt.Errorf("tasks: %s: %w", id, ErrNoRetry)
	}
	return &Retry{*l, l.next()}, r.list().complete(ctx, l)
}

// Now lets a message be tried at once.
func (r *Retries) Now(ctx context.Context, queue, id string) error {
	n, err := retryNowScript.Run(ctx, r.redis, []string{retryKey(queue), pendingKey(queue), asynqbatch.TaskKey(queue, id)}, id).Int()
	switch {
	case err != nil:
		return redisconn.Unavailable(err)
	case n == 0:
		return fmt.Errorf("tasks: %s: %w", id, ErrNoRetry)
	}
	r.client.Hints.Queued(ctx, queue, true)
	return nil
}

// Cancel takes a message back, as Queue.Cancel does: it goes without a trace.
func (r *Retries) Cancel(ctx context.Context, queue, id string) error {
	err := r.cancel.Task(ctx, wire.ParseQueueName(queue), id)
	if errors.Is(err, mailer.ErrNoTask) || errors.Is(err, mailer.ErrTooLate) {
		return fmt.Errorf("tasks: %s: %w", id, ErrNoRetry)
	}
	return err
}

// retryNowScript lets the task ARGV[1] with the record KEYS[3] wait in the list KEYS[2] and no more in the set KEYS[1].
var retryNowScript = redis.NewScript(`
if redis.call("ZREM", KEYS[1], ARGV[1]) == 0 then return 0 end
local now = redis.call("TIME")
redis.call("LPUSH", KEYS[2], ARGV[1])
redis.call("HSET", KEYS[3], "state", "pending", "pending_since", now[1] .. string.format("%06d", now[2]) .. "000")
return 1`)
