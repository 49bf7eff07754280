// Package queuewatch finds out which of many queues have something to do, for about the same few commands however
// many they are.
//
// An asynq server asks each of its queues many times a second, and does so with connections and scripts of its
// own. A [Watcher] looks at all queues in which nothing has happened for a while in their place: it says which are
// asleep, and calls Config.Found when one wakes. It never takes a task and never moves one.
//
//	Hints.Queued, by a program  --publish-->  Watcher: look, at once
//	pending tasks of the quick queues         every 50 ms
//	all that may have come due, of all        every 2 s
//
// The hint makes a queue wake at once, and the looks make up for every hint that is lost.
package queuewatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// Config configures a Watcher.
type Config struct {
	// Idle is how long nothing has to happen in a queue until it is asleep. It is longer than the pause between two
	// hints of a program.
	Idle time.Duration

	// Found is called when a queue that was asleep has something to do: a task that can be taken, one
	// whose time has come, or one whose worker has died. The queue is not asleep any more.
	Found func(queue string)

	// Expired is called now and then for a queue that is asleep and keeps tasks that were completed, with Redis's
	// time: what is kept no longer is to be deleted.
	Expired func(ctx context.Context, queue string, now time.Time) error
}

// Watcher watches queues. Its methods may be called from several goroutines.
type Watcher struct {
	redis redis.UniversalClient
	cfg   Config
	sizes []int // of the groups of queues that one command looks at, from the greatest to 1

	mu     sync.RWMutex
	queues map[string]*queue
}

// queue is one queue of asynq's.
type queue struct {
	name  string
	quick bool
	since atomic.Int64 // when it last had something to do, in nanoseconds

	// Of what is in it though it is asleep. Only the goroutine that looks uses them.
	occupied bool  // it has tasks that wait for their time, or that another worker has
	due      int64 // when the first of them comes due, in Redis's seconds
}

// New returns a Watcher of no queues, on the given Redis.
func New(client redis.UniversalClient, cfg Config) *Watcher {
	w := &Watcher{redis: client, cfg: cfg, sizes: []int{256, 16, 1}, queues: map[string]*queue{}}
	if _, cluster := client.(*redis.ClusterClient); cluster {
		w.sizes = []int{1} // a command has the keys of one queue: others are at other nodes
	}
	return w
}

// Add adds queues, by asynq's names. They are asleep. Tasks are seen within 50 ms in those that are quick, and within a few
// seconds in others, unless a hint comes first.
func (w *Watcher) Add(quick bool, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		if w.queues[name] == nil {
			w.queues[name] = &queue{name: name, quick: quick}
		}
	}
}

func (w *Watcher) queue(name string) *queue {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.queues[name]
}

// Asleep reports whether a queue is watched and has had nothing to do for a while.
func (w *Watcher) Asleep(name string) bool {
	q := w.queue(name)
	return q != nil && w.asleep(q)
}

func (w *Watcher) asleep(q *queue) bool {
	return time.Since(time.Unix(0, q.since.Load())) >= w.cfg.Idle
}

// Took notes that a task was taken from a queue.
func (w *Watcher) Took(name string) {
	if q := w.queue(name); q != nil {
		q.since.Store(time.Now().UnixNano())
	}
}

// found wakes a queue.
func (w *Watcher) found(q *queue) {
	q.since.Store(time.Now().UnixNano())
	q.occupied, q.due = false, 0
	w.cfg.Found(q.name)
}

// sleeping are the queues that are asleep, those that are quick alone if that is asked for.
func (w *Watcher) sleeping(quick bool) []*queue {
	w.mu.RLock()
	defer w.mu.RUnlock()
	list := make([]*queue, 0, len(w.queues))
	for _, q := range w.queues {
		if (q.quick || !quick) && w.asleep(q) {
			list = append(list, q)
		}
	}
	return list
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	var hints sync.WaitGroup
	heard := make(chan string)
	hints.Go(func() { w.listen(ctx, heard) })
	defer hints.Wait()
	w.look(ctx, heard)
}

const (
	quickEvery   = 50 * time.Millisecond
	allEvery     = 2 * time.Second
	expiredEvery = time.Minute

	// commandCost keeps the looks of a Redis Cluster, with a command for each queue, to 200 commands a second of either kind.
	commandCost = 5 * time.Millisecond
)

// look looks at the queues, each kind in its turn.
func (w *Watcher) look(ctx context.Context, heard <-chan string) {
	quick, all, expired := time.NewTimer(0), time.NewTimer(0), time.NewTimer(expiredEvery)
	defer quick.Stop()
	defer all.Stop()
	defer expired.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case name := <-heard:
			if q := w.queue(name); q != nil {
				w.found(q) // those that are awake stay so
			}
		case <-quick.C:
			var cost time.Duration
			cost, err = w.lookQuick(ctx)
			quick.Reset(max(quickEvery, cost))
		case <-all.C:
			var cost time.Duration
			cost, err = w.lookAll(ctx)
			all.Reset(max(allEvery, cost))
		case <-expired.C:
			err = w.lookExpired(ctx)
			expired.Reset(expiredEvery)
		}
		if err != nil {
			pause(ctx, time.Second)
		}
	}
}

// listen passes the hints on.
func (w *Watcher) listen(ctx context.Context, heard chan<- string) {
	sub := w.redis.Subscribe(ctx, wire.WakeChannel)
	defer func() { _ = sub.Close() }()
	hints := sub.Channel(redis.WithChannelHealthCheckInterval(10 * time.Second))
	for {
		select {
		case <-ctx.Done():
			return
		case hint, ok := <-hints:
			if !ok {
				return
			}
			select {
			case heard <- hint.Payload:
			case <-ctx.Done():
				return
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
