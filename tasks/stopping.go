package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// A worker that has to end while Redis is away has nothing to wait for unless it has something to write: its tasks
// come back by themselves when their leases are over. What it has to write is what the relay has said. So it goes on
// until its connections are quiet, and then waits for Redis only with outcomes that Redis does not know.

const (
	// silentFor is how long Redis has to have taken no write until it counts as away.
	silentFor = time.Second
	// lookEvery is how often a worker that ends looks at how things are.
	lookEvery = 50 * time.Millisecond
)

var errNotStopped = errors.New("tasks: stopped with messages unfinished: another worker takes them over within " +
	"two minutes, and may send what the relay has not answered a second time")

// redisAway returns a channel that is closed when a worker that ends has nothing to wait for but a Redis that is away.
// release ends it. The goroutine that asks Redis ends then too, or when Redis or the client lets go of it.
func (w *Worker) redisAway() (away <-chan struct{}, release context.CancelFunc) {
	ctx, release := context.WithCancel(context.Background())
	var last atomic.Int64 // when Redis has taken a write
	last.Store(time.Now().UnixNano())
	go askRedis(ctx, w.redis, &last)
	gone := make(chan struct{})
	go func() {
		look := time.NewTicker(lookEvery)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
			if time.Since(time.Unix(0, last.Load())) > silentFor && !w.wires() && !w.ledger.unwritten.any() {
				close(gone)
				return
			}
		}
	}()
	return gone, release
}

// askRedis notes when Redis takes a write, until ctx ends.
func askRedis(ctx context.Context, client redis.UniversalClient, last *atomic.Int64) {
	for ctx.Err() == nil {
		if redisconn.TryWrite(ctx, client) == nil {
			last.Store(time.Now().UnixNano())
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// wires reports whether a sender waits for its relay.
func (w *Worker) wires() bool {
	for _, d := range w.dispatchers {
		if d.busy.wires.Load() > 0 {
			return true
		}
	}
	return false
}

// cutOff ends asynq's servers though Redis does not answer them. What waits for Redis beside them ends when the client
// is closed.
func (w *Worker) cutOff() {
	w.asynq.CutOff()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.each(func(d *dispatcher) { d.servers.Shutdown() })
	}()
	select {
	case <-ended:
	case <-time.After(2 * givingBack): // it is still about to subscribe to cancellations, and cannot be told
	}
}

// shownTasks is how many tasks are named in one line of the log.
const shownTasks = 10

// stoppedWithout says what a worker leaves behind that ends without Redis, and that had so many tasks in hand when it
// was told to. The error is nil if that is nothing that could be sent twice.
func (w *Worker) stoppedWithout(inHand int) error {
	if inHand > 0 {
		w.log.Warn().Int("tasks", inHand).
			Msg("stopped while Redis is away: what this worker had in hand could not be given back, and another one takes it over within two minutes")
	} else {
		w.log.Info().Msg("worker stopped, while Redis is away")
	}
	return w.sayUnwritten()
}

// sayUnwritten is the error of a worker that could not tell Redis what the relay has accepted.
func (w *Worker) sayUnwritten() error {
	ids := w.ledger.unwritten.ids()
	if len(ids) == 0 {
		return nil
	}
	w.log.Error().Int("messages", len(ids)).Strs("tasks", ids[:min(len(ids), shownTasks)]).
		Msg("the relay's answers to these messages could not be written to Redis: another worker may send them a second time")
	for _, id := range ids {
		w.log.Debug().Str("task", id).Msg("the relay's answer could not be written to Redis")
	}
	return redisconn.Unavailable(fmt.Errorf("tasks: stopped while Redis is away: it does not know the outcomes of %d messages, "+
		"which another worker may send a second time", len(ids)))
}
