// Package queuewatch finds out which of many queues have something to do, for about the same few commands however
// many they are.
//
// An asynq server asks each of its queues many times a second, and does so with connections and scripts of its
// own. A [Watcher] looks at all queues in which nothing has happened for a while in their place: it says which are
// asleep, and calls Config.Found when one wakes. It never takes a task and never moves one.
//
//	a program's script          --publish-->  Config.Hinted, at once: the worker is awake, and waits for a task
//	Hints.Queued, by a program  --publish-->  Config.Found, at once
//	pending tasks of the quick queues         every 50 ms
//	all that may have come due, of all        every 2 s
//
// The hint makes a queue wake at once, and the looks make up for every hint that is lost.
package queuewatch

import (
	"context"
	"errors"
	"slices"
	"strings"
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

	// ID is the worker's, under which it hears of tasks when it waits for some, and Hinted is called then, by another
	// goroutine: see wire.WaitingKey. It is called after Found too, if the queue was asleep. Without an ID there are no such hints.
	ID     string
	Hinted func(queue string)

	// Deaf is called when Redis does not let hints be heard, once.
	Deaf func(err error)

	// Expired is called now and then for a queue that is asleep and keeps tasks that were completed, with Redis's
	// time: what is kept no longer is to be deleted.
	Expired func(ctx context.Context, queue string, now time.Time) error
}

// Watcher watches queues. Its methods may be called from several goroutines.
type Watcher struct {
	redis redis.UniversalClient
	cfg   Config
	sizes []int // of the groups of queues that one command looks at, from the greatest to 1

	hears atomic.Bool // hints

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

// found wakes a queue. Those who wait for tasks of others, and have not looked at it, are told.
func (w *Watcher) found(q *queue) {
	asleep := w.asleep(q)
	q.since.Store(time.Now().UnixNano())
	q.occupied, q.due = false, 0
	w.cfg.Found(q.name)
	if asleep && w.cfg.Hinted != nil {
		w.cfg.Hinted(q.name)
	}
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

// Waiter is the ID of Config while hints are heard, and "" otherwise.
func (w *Watcher) Waiter() string {
	if !w.hears.Load() {
		return ""
	}
	return w.cfg.ID
}

// deafFor is how long Redis is not asked again that does not let hints be heard: rights may change.
const deafFor = time.Minute

// listen passes the hints on. go-redis subscribes anew when a connection breaks.
func (w *Watcher) listen(ctx context.Context, heard chan<- string) {
	told := false
	for ctx.Err() == nil {
		err := w.hear(ctx, heard)
		var reply redis.Error
		if !errors.As(err, &reply) || !strings.HasPrefix(reply.Error(), "NOPERM") {
			pause(ctx, time.Second)
			continue
		}
		if !told && w.cfg.Deaf != nil {
			w.cfg.Deaf(err)
		}
		told = true
		pause(ctx, deafFor)
	}
}

// hear passes the hints on of one subscription.
func (w *Watcher) hear(ctx context.Context, heard chan<- string) error {
	channels := []string{wire.WakeChannel}
	own := wire.WakeChannelOf(w.cfg.ID)
	if w.cfg.ID != "" {
		channels = append(channels, own)
	}
	sub := w.redis.Subscribe(ctx, channels...)
	defer func() { _ = sub.Close() }()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // go-redis waits for its time-out alone
	for range channels {
		if _, err := sub.ReceiveTimeout(ctx, subscribesIn); err != nil {
			return err
		}
	}
	w.hears.Store(true)
	defer w.hears.Store(false)
	hints := sub.Channel(redis.WithChannelHealthCheckInterval(10 * time.Second))
	for {
		select {
		case <-ctx.Done():
			return nil
		case hint, ok := <-hints:
			if !ok {
				return nil
			}
			asleep := w.Asleep(hint.Payload)
			if hint.Channel == own {
				w.cfg.Hinted(hint.Payload)
			}
			if hint.Channel == own && !asleep {
				continue
			}
			select {
			case heard <- hint.Payload:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// subscribesIn is how long Redis may take to answer that it will send hints.
const subscribesIn = 10 * time.Second

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// key is a key of asynq's for a queue.
func (q *queue) key(what string) string { return "asynq:{" + q.name + "}:" + what }

// The keys in which a queue has what is to be done, now or later. asynq deletes a list that is empty, as Redis does
// with all of its collections: so whether they exist is all that has to be asked.
var (
	pendingKey    = []string{"pending"}
	workKeys      = []string{"pending", "scheduled", "retry", "lease"}
	completedKeys = []string{"completed"}
)

// existing returns those of the queues that have one of the keys. A command asks for many queues at once, and only
// of a group that has something are the smaller ones asked for, down to each single one.
func (w *Watcher) existing(ctx context.Context, queues []*queue, keys []string) ([]*queue, error) {
	for level, size := range w.sizes {
		if last := level == len(w.sizes)-1; level > 0 && !last && len(queues) <= size {
			continue // it would be asked the same again
		}
		var counts []*redis.IntCmd
		_, err := w.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for group := range slices.Chunk(queues, size) {
				all := make([]string, 0, len(group)*len(keys))
				for _, q := range group {
					for _, what := range keys {
						all = append(all, q.key(what))
					}
				}
				counts = append(counts, pipe.Exists(ctx, all...))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		var left []*queue
		n := 0
		for group := range slices.Chunk(queues, size) {
			if counts[n].Val() > 0 {
				left = append(left, group...)
			}
			n++
		}
		if queues = left; len(queues) == 0 {
			return nil, nil
		}
	}
	return queues, nil
}

// cost is how long a look at so many queues has to last that is made with a command for each, as in a cluster.
func (w *Watcher) cost(queues []*queue) time.Duration {
	return time.Duration(len(queues)/w.sizes[0]) * commandCost
}

// lookQuick looks for pending tasks in the quick queues.
func (w *Watcher) lookQuick(ctx context.Context) (cost time.Duration, err error) {
	queues := w.sleeping(true)
	if len(queues) == 0 {
		return 0, nil
	}
	pending, err := w.existing(ctx, queues, pendingKey)
	if err == nil {
		err = w.examine(ctx, pending, time.Time{}) // what comes due is not looked for so often
	}
	return w.cost(queues), err
}

// lookAll looks for all that is to be done in all queues. Those that have tasks which are not due yet are examined
// one by one: when the first comes due, and some of them each time, for others may have come since.
func (w *Watcher) lookAll(ctx context.Context) (cost time.Duration, err error) {
	queues := w.sleeping(false)
	if len(queues) == 0 {
		return 0, nil
	}
	now, err := w.time(ctx)
	if err != nil {
		return 0, err
	}
	var empty, occupied []*queue
	for _, q := range queues {
		if q.occupied {
			occupied = append(occupied, q)
		} else {
			empty = append(empty, q)
		}
	}
	candidates, err := w.existing(ctx, empty, workKeys)
	if err != nil {
		return 0, err
	}
	pending, err := w.existing(ctx, occupied, pendingKey)
	if err != nil {
		return 0, err
	}
	candidates = append(candidates, pending...)
	others := mostExamined
	for _, q := range occupied { // in the order of a map: another one each time
		if due := q.due <= now.Unix(); (due || others > 0) && !slices.Contains(pending, q) {
			candidates = append(candidates, q)
			if !due {
				others--
			}
		}
	}
	return w.cost(queues), w.examine(ctx, candidates, now)
}

// time is Redis's time, or ours where Redis does not let us ask.
func (w *Watcher) time(ctx context.Context) (time.Time, error) {
	now, err := w.redis.Time(ctx).Result()
	var reply redis.Error
	if errors.As(err, &reply) {
		return time.Now(), nil
	}
	return now, err
}

// mostExamined is how many queues are examined in a look whose tasks are not due yet, as far as is known.
const mostExamined = 50

// leaseGrace is how long a lease has to be over until its task is recovered, as asynq has it.
const leaseGrace = 30 * time.Second

// examine finds out what the queues have, and wakes those that have something to do at that time of Redis's.
func (w *Watcher) examine(ctx context.Context, queues []*queue, now time.Time) error {
	if len(queues) == 0 {
		return nil
	}
	type answers struct {
		pending, paused         *redis.IntCmd
		scheduled, retry, lease *redis.ZSliceCmd
	}
	all := make([]answers, len(queues))
	_, err := w.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, q := range queues {
			all[i] = answers{
				pending: pipe.Exists(ctx, q.key("pending")), paused: pipe.Exists(ctx, q.key("paused")),
				scheduled: pipe.ZRangeWithScores(ctx, q.key("scheduled"), 0, 0), retry: pipe.ZRangeWithScores(ctx, q.key("retry"), 0, 0),
				lease: pipe.ZRangeWithScores(ctx, q.key("lease"), 0, 0),
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, q := range queues {
		a := all[i]
		pending := a.pending.Val() > 0
		due := int64(never)
		for _, first := range []struct {
			tasks []redis.Z
			grace time.Duration
		}{{a.scheduled.Val(), 0}, {a.retry.Val(), 0}, {a.lease.Val(), leaseGrace}} {
			if len(first.tasks) > 0 {
				due = min(due, int64(first.tasks[0].Score)+int64(first.grace/time.Second))
			}
		}
		q.occupied, q.due = pending || due != never, due
		if pending && a.paused.Val() == 0 || due <= now.Unix() {
			w.found(q)
		}
	}
	return nil
}

// never is when nothing comes due.
const never = 1 << 62

// lookExpired has what is kept no longer deleted: the asynq servers that would do so do not run.
func (w *Watcher) lookExpired(ctx context.Context) error {
	queues, err := w.existing(ctx, w.sleeping(false), completedKeys)
	if err != nil || len(queues) == 0 {
		return err
	}
	now, err := w.time(ctx)
	for _, q := range queues {
		if err == nil {
			err = w.cfg.Expired(ctx, q.name, now)
		}
	}
	return err
}
