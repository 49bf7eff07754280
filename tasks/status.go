package tasks

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// QueueStatus is what is in one queue of asynq's, in tasks: most are one message each, those
// of a mass queue carry many.
type QueueStatus struct {
	Name      string // as asynq has it; ParseQueueName takes it apart
	Waiting   int    // for a worker
	InHand    int    // of workers, waiting there or on the wire
	Scheduled int    // for later
	Retry     int    // tried, and waiting for the next try
	Dead      int    // dead letters
	Paused    bool   // by a person: nothing is taken from it

	// Since is when the oldest of those that wait began to: zero if none waits.
	Since time.Time
}

// ReadStatus returns what is in every queue that is in Redis, by name. It takes three
// round trips, however many queues there are, and reads no message.
func ReadStatus(ctx context.Context, client redis.UniversalClient) ([]QueueStatus, error) {
	names, err := client.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(names)
	all := make([]QueueStatus, len(names))
	oldest := make([]*redis.StringCmd, len(names))
	pipe := client.Pipeline()
	read := make([]func(*QueueStatus), len(names))
	for i, name := range names {
		read[i], oldest[i] = countQueue(ctx, pipe, name)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	for i, name := range names {
		all[i].Name = name
		read[i](&all[i])
	}
	return all, readSince(ctx, client, all, oldest)
}

// countQueue asks for what is in one queue. read takes the answers over after the round trip.
func countQueue(ctx context.Context, pipe redis.Pipeliner, name string) (read func(*QueueStatus), oldest *redis.StringCmd) {
	prefix := "asynq:{" + name + "}:"
	waiting, inHand := pipe.LLen(ctx, prefix+"pending"), pipe.LLen(ctx, prefix+"active")
	scheduled, retry := pipe.ZCard(ctx, prefix+"scheduled"), pipe.ZCard(ctx, prefix+"retry")
	archived, dead := pipe.ZCard(ctx, archiveKey(name)), pipe.ZCard(ctx, wire.DeadKey(name))
	paused := pipe.Exists(ctx, prefix+"paused")
	return func(q *QueueStatus) {
		q.Waiting, q.InHand = int(waiting.Val()), int(inHand.Val())
		q.Scheduled, q.Retry = int(scheduled.Val()), int(retry.Val())
		q.Dead = int(archived.Val() + dead.Val())
		q.Paused = paused.Val() > 0
	}, pipe.LIndex(ctx, prefix+"pending", -1)
}

// readSince asks since when the oldest tasks wait. One that was taken in between waits no
// more.
func readSince(ctx context.Context, client redis.UniversalClient, all []QueueStatus, oldest []*redis.StringCmd) error {
	pipe := client.Pipeline()
	since := make([]*redis.StringCmd, len(all))
	for i := range all {
		if id := oldest[i].Val(); id != "" {
			since[i] = pipe.HGet(ctx, asynqbatch.TaskKey(all[i].Name, id), "pending_since")
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return redisconn.Unavailable(err)
	}
	for i, reply := range since {
		if reply == nil {
			continue
		}
		if nano, err := strconv.ParseInt(reply.Val(), 10, 64); err == nil {
			all[i].Since = time.Unix(0, nano)
		}
	}
	return nil
}
