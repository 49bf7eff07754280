package tasks

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/queuewatch"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// watcher knows which dispatchers have mail. A worker may have a mailer for each of a thousand customers, most
// of whom send nothing most of the time: their dispatchers are asleep, and one watcher looks at all their queues. It also
// says that the worker lives, and finds parts of its queues that its settings do not know.
type watcher struct {
	redis       redis.UniversalClient
	log         zerolog.Logger
	queues      *queuewatch.Watcher
	dispatchers map[string]*dispatcher // by mailer
	self        presence.Worker
	unserved    map[string]bool // queues that were complained of
	did         *counter
}

// maxShards is the greatest number of parts that is believed: the greatest that the settings allow.
const maxShards = 64

func newWatcher(client redis.UniversalClient, cfg WorkerConfig, dispatchers map[string]*dispatcher, did *counter, hinted func(queue string)) *watcher {
	w := &watcher{redis: client, log: *cfg.Logger, dispatchers: dispatchers, self: presence.New(), unserved: map[string]bool{}, did: did}
	w.self.Version = cfg.Version
	w.self.Mailers = slices.Sorted(maps.Keys(cfg.Mailers))
	w.self.Queues = slices.Sorted(maps.Keys(cfg.Queues))
	w.self.Shards = cfg.Shards
	w.queues = queuewatch.New(client, queuewatch.Config{
		Idle: cfg.restAfter, Found: w.found, ID: w.self.ID, Hinted: hinted, Deaf: w.deaf,
		Expired: func(ctx context.Context, queue string, now time.Time) error {
			return asynqbatch.DeleteExpired(ctx, client, queue, now)
		},
	})
	return w
}

// found wakes the dispatcher of a queue.
func (w *watcher) found(queue string) {
	if d := w.dispatchers[wire.ParseQueueName(queue).Mailer]; d != nil {
		d.servers.Wake()
	}
}

// deaf logs that the worker cannot be woken.
func (w *watcher) deaf(err error) {
	w.log.Warn().Err(err).Msg("no hint wakes this worker when mail comes, so it looks for mail every 50 ms: " +
		"the user of Redis needs the right to the channels (ACL: +subscribe +publish &mailpouch:*)")
}

// run watches until ctx ends. Redis may not answer then, so it does not wait for that.
func (w *watcher) run(ctx context.Context) {
	w.add()
	var all sync.WaitGroup
	all.Go(func() { w.queues.Run(ctx) })
	all.Go(func() { every(ctx, time.Second, w.rest) })
	all.Go(func() { w.announce(ctx) })
	all.Wait()
}

// add has all queues watched.
func (w *watcher) add() {
	for mailer, d := range w.dispatchers {
		w.queues.Add(mailer == "", d.queueNames()...)
	}
}

// rest lets dispatchers rest that have no mail. One whose servers took a task just when they were told to
// end has mail, and wakes again.
func (w *watcher) rest() {
	for _, d := range w.dispatchers {
		asleep := func() bool {
			return d.held() == nil && !slices.ContainsFunc(d.queueNames(), func(name string) bool { return !w.queues.Asleep(name) })
		}
		if d.servers.Awake() {
			d.servers.Rest(asleep)
		} else if d.held() == nil && !asleep() {
			d.servers.Wake()
		}
	}
}

// announce says that the worker lives, until it does no more.
func (w *watcher) announce(ctx context.Context) {
	wrote := false
	n := 0
	last := time.Now()
	every(ctx, presence.Every, func() {
		did := w.did.take()
		w.describe(time.Since(last))
		last = time.Now()
		err := presence.Announce(ctx, w.redis, w.self, w.names(), did)
		wrote = err == nil
		if err != nil {
			w.did.giveBack(did)
		} else {
			err = w.look(ctx)
		}
		if n++; err == nil && n%12 == 0 {
			err = presence.Sweep(ctx, w.redis)
		}
		if err != nil {
			w.log.Debug().Err(err).Msg("cannot say that the worker lives: trying again")
		}
	})
	if wrote { // else Redis is away, and would keep us waiting
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = presence.Leave(ctx, w.redis, w.self, w.did.take())
	}
}

// describe fills in what the worker has done, also in the time since it last said so, and what it cannot do.
func (w *watcher) describe(since time.Duration) {
	sent := w.did.sent.Load()
	w.self.Rate = float64(sent-w.self.Sent) / max(since, time.Second).Seconds()
	w.self.Sent = sent
	w.self.Held = nil
	for name, d := range w.dispatchers {
		if d.held() != nil {
			w.self.Held = append(w.self.Held, cmp.Or(name, handover.DefaultMailer))
		}
	}
	slices.Sort(w.self.Held)
}

// counter counts what becomes of messages, until it is written.
type counter struct {
	sent atomic.Int64 // since the start

	mu  sync.Mutex
	did presence.Counts // since it was written
}

// outcome is told of each.
func (c *counter) outcome(o Outcome) {
	n := presence.Counts{Refused: int64(len(o.Refused))}
	switch o.Action {
	case ActionSent:
		n.Sent = 1
		c.sent.Add(1)
	case ActionRetry:
		n.Retried = 1
	case ActionDead:
		n.Dead = 1
	case ActionSilent, ActionCancelled, ActionSkipped, ActionSentBefore, ActionForwarded:
	}
	c.giveBack(n)
}

// take returns what was done and is not written.
func (c *counter) take() presence.Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	did := c.did
	c.did = presence.Counts{}
	return did
}

// giveBack adds what was done.
func (c *counter) giveBack(did presence.Counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = c.did.Add(did)
}

// names are asynq's names of all queues that the worker serves.
func (w *watcher) names() []string {
	var all []string
	for _, d := range w.dispatchers {
		all = append(all, d.queueNames()...)
	}
	return all
}

// look looks at the names of all queues: for parts of its own that programs have made and the settings here do not know,
// and for queues with tasks that no worker serves.
func (w *watcher) look(ctx context.Context) error {
	names, err := w.redis.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return err
	}
	whole := w.self
	whole.Shards = maxShards
	var parts, others []string
	for _, name := range names {
		switch parsed := wire.ParseQueueName(name); {
		case parsed.String() == name && whole.Serves(parsed):
			if parsed.Shard > w.self.Shards {
				parts = append(parts, name)
			}
		case !w.unserved[name]:
			others = append(others, name)
		}
	}
	if parts, err = withTasks(ctx, w.redis, parts); err != nil {
		return err
	}
	shards := w.self.Shards
	for _, name := range parts { // those that are empty may be of a time when there were more
		shards = max(shards, wire.ParseQueueName(name).Shard)
	}
	if shards > w.self.Shards {
		w.serve(shards)
	}
	return w.complain(ctx, others)
}

// serve serves so many parts of each queue.
func (w *watcher) serve(shards int) {
	w.log.Warn().Int("parts", shards).Int("set_here", w.self.Shards).
		Msg("programs divide their queues into more parts than this worker was told: it serves them too (EMAIL_QUEUE_SHARDS)")
	w.self.Shards = shards
	for _, d := range w.dispatchers {
		d.shards.Store(int32(shards)) //nolint:gosec // maxShards at most
	}
	w.add()
	for _, d := range w.dispatchers {
		d.servers.Renew()
	}
}

// complain logs, once for each queue, that it has tasks and that no worker takes them.
func (w *watcher) complain(ctx context.Context, queues []string) error {
	waiting, err := withTasks(ctx, w.redis, queues)
	if err != nil || len(waiting) == 0 {
		return err
	}
	workers, err := presence.Read(ctx, w.redis)
	if err != nil {
		return err
	}
	foreign, err := asynqbatch.ServedQueues(ctx, w.redis)
	if err != nil {
		return err
	}
	for _, name := range waiting {
		parsed := wire.ParseQueueName(name)
		if foreign[name] || slices.ContainsFunc(workers, func(other presence.Worker) bool { return other.Serves(parsed) }) {
			continue
		}
		w.unserved[name] = true
		w.log.Warn().Str("queue", name).
			Msg("tasks wait in a queue that no worker serves: see EMAIL_QUEUES and EMAIL_MAILERS of the workers, or what the programs name")
	}
	return nil
}

// withTasks are those of the queues in which tasks wait.
func withTasks(ctx context.Context, client redis.UniversalClient, queues []string) ([]string, error) {
	if len(queues) == 0 {
		return nil, nil
	}
	tasks := make([]*redis.IntCmd, len(queues))
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, name := range queues {
			prefix := "asynq:{" + name + "}:"
			tasks[i] = pipe.Exists(ctx, prefix+"pending", prefix+"scheduled", prefix+"retry")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var waiting []string
	for i, name := range queues {
		if tasks[i].Val() > 0 {
			waiting = append(waiting, name)
		}
	}
	return waiting, nil
}
