package queuewatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

const (
	// hintEvery is how often a program hints at the same queue at most. A worker that has heard of a queue looks at
	// it for much longer than that.
	hintEvery = 5 * time.Second

	// hintFor is how long a hand-over waits for its hint at most, so that a program that hands over one message
	// and ends has sent it.
	hintFor = 100 * time.Millisecond
)

// Hints tells the workers that a queue has a task. It is told after the task is in Redis, and where it
// cannot be told nothing is amiss: workers look at every queue now and then. It may be used by several goroutines.
type Hints struct {
	redis redis.UniversalClient
	under atomic.Bool // one is under way: another one would not come sooner
	last  sync.Map    // when a queue was hinted at: a *atomic.Int64, in nanoseconds, by its name
}

// NewHints returns Hints on the given Redis.
func NewHints(client redis.UniversalClient) *Hints {
	return &Hints{redis: client}
}

// Queued says that a queue of asynq's has got a task, which is to be taken now or later. It also writes the queue's
// name to asynq's set of names: asynq's own client does so once, and the set may have been lost since then.
func (h *Hints) Queued(ctx context.Context, queue string, now bool) {
	last, before := h.due(queue)
	if last == nil || !h.under.CompareAndSwap(false, true) {
		return
	}
	if !last.CompareAndSwap(before, time.Now().UnixNano()) {
		h.under.Store(false)
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer h.under.Store(false)
		h.send(context.WithoutCancel(ctx), queue, now)
	}()
	timer := time.NewTimer(hintFor)
	defer timer.Stop()
	select {
	case <-sent:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// due returns where it is noted when the queue was hinted at last, and that time: nil if it was a moment ago.
func (h *Hints) due(queue string) (last *atomic.Int64, before int64) {
	at, ok := h.last.Load(queue)
	if !ok {
		at, _ = h.last.LoadOrStore(queue, new(atomic.Int64))
	}
	last, _ = at.(*atomic.Int64)
	if before = last.Load(); time.Since(time.Unix(0, before)) < hintEvery {
		return nil, 0
	}
	return last, before
}

// send sends both at once. A user of Redis who may not publish may still write the name.
func (h *Hints) send(ctx context.Context, queue string, now bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = h.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if now {
			pipe.Publish(ctx, wire.WakeChannel, queue)
		}
		pipe.SAdd(ctx, wire.QueuesKey, queue)
		return nil
	})
}
