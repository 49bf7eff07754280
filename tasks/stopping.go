package tasks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// A worker that has to end while Redis is away has nothing to wait for unless it has something to write: its tasks
// come back by themselves when their leases are over. What it has to write is what the relay has said. So it goes on
// until its connections are quiet, and then waits for Redis only with outcomes that Redis does not know.

const (
	// lookEvery is how often a worker that ends looks at how things are.
	lookEvery = 50 * time.Millisecond
	// silentFor is for how many looks, so for about a second, Redis has to have taken no write until it counts as away. It is no time, for a
	// worker that has itself stood still has heard nothing of Redis either.
	silentFor = 20
)

var errNotStopped = errors.New("tasks: stopped with messages unfinished: another worker takes them over within " +
	"two minutes, and may send what the relay has not answered a second time")

// absence is what a worker that ends knows of Redis.
type absence struct {
	writes atomic.Int64  // that Redis has taken
	silent atomic.Int64  // looks since the last one
	gone   chan struct{} // closed when Redis has taken no write for a moment and there is nothing else to wait for
}

// lookForRedis looks whether Redis is away, until release ends that. quiet reports that there is nothing else to wait for. The goroutine
// that asks Redis ends then too, or when Redis or the client lets go of it.
func lookForRedis(client redis.UniversalClient, quiet func() bool) (a *absence, release context.CancelFunc) {
	ctx, release := context.WithCancel(context.Background())
	a = &absence{gone: make(chan struct{})}
	go a.ask(ctx, client)
	go a.look(ctx, quiet)
	return a, release
}

func (a *absence) look(ctx context.Context, quiet func() bool) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for heard := int64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C: // once, however long it was
		}
		if n := a.writes.Load(); n > heard {
			heard = n
			a.silent.Store(0)
		}
		if a.silent.Add(1) > silentFor && quiet() {
			close(a.gone)
			return
		}
	}
}

// ask counts the writes that Redis takes.
func (a *absence) ask(ctx context.Context, client redis.UniversalClient) {
	for ctx.Err() == nil {
		if redisconn.TryWrite(ctx, client) == nil {
			a.writes.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// isSilent reports whether Redis has taken nothing lately, so that what was to be given back was not.
func (a *absence) isSilent() bool { return a.silent.Load() > silentFor/2 }

// shownTasks is how many tasks are named in one line of the log.
const shownTasks = 10

// stoppedWithout logs that a worker ends without Redis, and what it had in hand when it was told to.
func stoppedWithout(log zerolog.Logger, inHand int) {
	if inHand == 0 {
		log.Info().Msg("worker stopped, while Redis is away")
		return
	}
	log.Warn().Int("tasks", inHand).
		Msg("stopped while Redis is away: what this worker had in hand could not be given back, and another one takes it over within two minutes")
}

// say is the error of a worker that ends and could not tell Redis what the relay has accepted, nil if there is nothing like
// that. It logs of which tasks.
func (u *unwritten) say(log zerolog.Logger) error {
	ids := u.ids()
	if len(ids) == 0 {
		return nil
	}
	log.Error().Int("messages", len(ids)).Strs("tasks", ids[:min(len(ids), shownTasks)]).
		Msg("the relay's answers to these messages could not be written to Redis: another worker may send them a second time")
	for _, id := range ids {
		log.Debug().Str("task", id).Msg("the relay's answer could not be written to Redis")
	}
	return redisconn.Unavailable(fmt.Errorf("tasks: stopped while Redis is away: it does not know the outcomes of %d messages, "+
		"which another worker may send a second time", len(ids)))
}

// unwritten knows of which messages the outcome is still to be written to Redis: accepted ones, until Redis knows that,
// and at_most_once ones whose mark is to be taken back. While there are some a worker does not end of itself, for
// another one would send them again, or make dead letters of them. The zero value is ready for use.
type unwritten struct {
	mu       sync.Mutex
	messages map[string]string // task IDs, by the names of deliveries
}

func (u *unwritten) add(deliveries ...*delivery) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.messages == nil {
		u.messages = map[string]string{}
	}
	for _, d := range deliveries {
		u.messages[d.name()] = d.key[strings.Index(d.key, "}:t:")+len("}:t:"):] + d.suffix
	}
}

// written notes that Redis knows, or that nobody will try to tell it again.
func (u *unwritten) written(deliveries ...*delivery) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, d := range deliveries {
		delete(u.messages, d.name())
	}
}

// restored notes that Redis knows all of these, by their names.
func (u *unwritten) restored(names map[string]string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.messages, func(name, _ string) bool { return names[name] != "" })
}

// any reports whether there are some.
func (u *unwritten) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.messages) > 0
}

// ids are the IDs of their tasks.
func (u *unwritten) ids() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Values(u.messages))
}
