package tasks

import (
	"context"
	"iter"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/tasks/internal/letters"
)

// Retry is a message that has failed and will be tried again.
//
//	type Retry struct {
//		DeadLetter           // what is known of it, as of a dead letter
//		Next       time.Time // when it is tried again
//	}
type Retry = letters.Retry

// Retries is the way to the messages that wait for their next try.
type Retries struct{ room *letters.Retries }

// ErrNoRetry reports that no message with an ID waits for its next try.
var ErrNoRetry = letters.ErrNoRetry

// NewRetries returns the messages in the given Redis, which it does not close, that wait for their next try.
func NewRetries(client redis.UniversalClient) *Retries { return &Retries{letters.NewRetries(client)} }

// Each yields the messages that a filter means, in the order of their next tries in each queue, as DeadLetters.Each does.
func (r *Retries) Each(ctx context.Context, f Filter) iter.Seq2[*Retry, error] {
	return r.room.Each(ctx, f)
}

// Survey counts the messages that a filter means, by reason, and has those that failed last: so many as are asked for.
func (r *Retries) Survey(ctx context.Context, f Filter, newest int) (s Survey, last []*Retry, err error) {
	return r.room.Survey(ctx, f, newest)
}

// Get returns a message with all that is in it, and its history. The error is ErrNoRetry if it waits no more.
func (r *Retries) Get(ctx context.Context, queue, id string) (*Retry, error) {
	return r.room.Get(ctx, queue, id)
}

// Now lets a message be tried at once.
func (r *Retries) Now(ctx context.Context, queue, id string) error { return r.room.Now(ctx, queue, id) }

// Cancel takes a message back, as Queue.Cancel does: it goes without a trace.
func (r *Retries) Cancel(ctx context.Context, queue, id string) error {
	return r.room.Cancel(ctx, queue, id)
}
