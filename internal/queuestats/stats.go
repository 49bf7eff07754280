package queuestats

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// Stats is Queue with what only metrics show.
type Stats struct {
	Queue
	Archived  int   // those of the dead letters that asynq's own tools see
	Completed int   // sent, and kept for a while
	Processed int64 // tries that have ended since there is the queue
	Failed    int64 // those of Processed that failed

	// Due is the time of the first task that waits for one. It is in the past if no worker
	// is there to see that it has come. Zero if none waits.
	Due time.Time
}

// Oldest is how long the task is late that is most so.
func (s Stats) Oldest(now time.Time) time.Duration {
	var late time.Duration
	for _, t := range []time.Time{s.Since, s.Due} {
		if !t.IsZero() {
			late = max(late, now.Sub(t))
		}
	}
	return late
}

// ReadStats returns the numbers of every queue that is in Redis, by name, and then the names of those in which
// nothing ever was. It takes seven round trips, or nine, however many queues there are, reads no message, and every
// command takes Redis the same short time however many tasks there are.
func ReadStats(ctx context.Context, client redis.UniversalClient) ([]Stats, error) {
	status, err := read(ctx, client)
	if err != nil || len(status) == 0 {
		return nil, err
	}
	all := make([]Stats, len(status))
	var take []func()
	pipe := client.Pipeline()
	for i := range status {
		all[i].Queue = status[i]
		if !status[i].Unused {
			take = append(take, statQueue(ctx, pipe, &all[i]))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	for _, f := range take {
		f()
	}
	return all, nil
}

// statQueue asks for the numbers of one queue. read takes the answers over after the round
// trip.
func statQueue(ctx context.Context, pipe redis.Pipeliner, q *Stats) (read func()) {
	prefix := "asynq:{" + q.Name + "}:"
	archived, completed := pipe.ZCard(ctx, prefix+"archived"), pipe.ZCard(ctx, prefix+"completed")
	processed, failed := pipe.Get(ctx, prefix+"processed"), pipe.Get(ctx, prefix+"failed")
	scheduled, retry := pipe.ZRangeWithScores(ctx, prefix+"scheduled", 0, 0), pipe.ZRangeWithScores(ctx, prefix+"retry", 0, 0)
	return func() {
		q.Archived, q.Completed = int(archived.Val()), int(completed.Val())
		q.Processed, _ = processed.Int64() // 0 if there is none
		q.Failed, _ = failed.Int64()
		for _, first := range [][]redis.Z{scheduled.Val(), retry.Val()} {
			if len(first) == 0 {
				continue
			}
			if t := time.Unix(int64(first[0].Score), 0); q.Due.IsZero() || t.Before(q.Due) {
				q.Due = t
			}
		}
	}
}

// CountWorkers counts the worker processes that have said lately that they live. Processes of the same host name and
// number, as containers have them, are counted each.
func CountWorkers(ctx context.Context, client redis.UniversalClient) (int, error) {
	workers, err := presence.Read(ctx, client)
	return len(workers), err
}
