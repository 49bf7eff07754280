package queuewatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

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
