// Package queuestats counts what waits in Redis: the tasks of each queue, the workers that are alive, and
// the memory that queues take. It looks and changes nothing, and is quick however much there is; the
// pages and the metrics of a worker are made of it.
package queuestats

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Queue is what is in one queue of asynq's, in tasks: most are one message each, those
// of a bulk queue carry many.
type Queue struct {
	Name      string // as asynq has it; wire.ParseQueueName takes it apart
	Waiting   int    // for a worker
	InFlight  int    // of workers, waiting there or on the wire
	Scheduled int    // for later
	Retry     int    // tried, and waiting for the next try
	Dead      int    // dead letters
	Paused    bool   // by a person: nothing is taken from it

	// Workers is how many worker processes that live serve the queue. Where none of ours does and tasks
	// wait, asynq servers of other programs count, as one.
	Workers int

	// Since is when the oldest of those that wait began to: zero if none waits.
	Since time.Time

	// Unused reports that nothing ever was in the queue: a worker has written its name, or a program that
	// could not put anything in it.
	Unused bool
}

// Read returns what is in every queue that is in Redis, by name. It takes six round trips, and two more where no
// worker serves what waits, however many queues there are, and reads no message. A queue in which nothing ever was is
// left out: workers write the names of all that they serve.
func Read(ctx context.Context, client redis.UniversalClient) ([]Queue, error) {
	all, err := read(ctx, client)
	return slices.DeleteFunc(all, func(q Queue) bool { return q.Unused }), err
}

// read is Read with the queues in which nothing ever was, at the end.
func read(ctx context.Context, client redis.UniversalClient) ([]Queue, error) {
	names, unused, err := names(ctx, client)
	if err != nil {
		return nil, err
	}
	all := make([]Queue, len(names))
	oldest := make([]*redis.StringCmd, len(names))
	pipe := client.Pipeline()
	read := make([]func(*Queue), len(names))
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
	if err := readSince(ctx, client, all, oldest); err != nil {
		return nil, err
	}
	for _, name := range unused {
		all = append(all, Queue{Name: name, Unused: true})
	}
	return all, readWorkers(ctx, client, all)
}

// names returns the names of the queues that have something, or had, and of the others.
func names(ctx context.Context, client redis.UniversalClient) (used, unused []string, err error) {
	names, err := client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return nil, nil, redisconn.Unavailable(err)
	}
	slices.Sort(names)
	exist := make([]*redis.IntCmd, len(names))
	pipe := client.Pipeline()
	for i, name := range names {
		prefix := "asynq:{" + name + "}:"
		exist[i] = pipe.Exists(ctx, prefix+"pending", prefix+"active", prefix+"scheduled", prefix+"retry", prefix+"archived",
			prefix+"completed", prefix+"processed", prefix+"paused", wire.DeadKey(name))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, nil, redisconn.Unavailable(err)
	}
	for i, name := range names {
		if exist[i].Val() > 0 {
			used = append(used, name)
		} else {
			unused = append(unused, name)
		}
	}
	return used, unused, nil
}

// readWorkers asks which workers serve the queues.
func readWorkers(ctx context.Context, client redis.UniversalClient, all []Queue) error {
	workers, err := presence.Read(ctx, client)
	if err != nil || len(all) == 0 {
		return err
	}
	unserved := false
	for i := range all {
		name := wire.ParseQueueName(all[i].Name)
		for _, w := range workers {
			if w.Serves(name) {
				all[i].Workers++
			}
		}
		unserved = unserved || all[i].Unserved()
	}
	if !unserved {
		return nil
	}
	foreign, err := asynqbatch.ServedQueues(ctx, client)
	if err != nil {
		return redisconn.Unavailable(err)
	}
	for i := range all {
		if all[i].Unserved() && foreign[all[i].Name] {
			all[i].Workers = 1
		}
	}
	return nil
}

// Unserved reports whether tasks wait in the queue and no worker serves it.
func (q Queue) Unserved() bool { return q.Workers == 0 && q.Waiting+q.Scheduled+q.Retry > 0 }

// countQueue asks for what is in one queue. read takes the answers over after the round trip.
func countQueue(ctx context.Context, pipe redis.Pipeliner, name string) (read func(*Queue), oldest *redis.StringCmd) {
	prefix := "asynq:{" + name + "}:"
	waiting, inFlight := pipe.LLen(ctx, prefix+"pending"), pipe.LLen(ctx, prefix+"active")
	scheduled, retry := pipe.ZCard(ctx, prefix+"scheduled"), pipe.ZCard(ctx, prefix+"retry")
	archived, dead := pipe.ZCard(ctx, prefix+"archived"), pipe.ZCard(ctx, wire.DeadKey(name))
	paused := pipe.Exists(ctx, prefix+"paused")
	return func(q *Queue) {
		q.Waiting, q.InFlight = int(waiting.Val()), int(inFlight.Val())
		q.Scheduled, q.Retry = int(scheduled.Val()), int(retry.Val())
		q.Dead = int(archived.Val() + dead.Val())
		q.Paused = paused.Val() > 0
	}, pipe.LIndex(ctx, prefix+"pending", -1)
}

// readSince asks since when the oldest tasks wait. One that was taken in between waits no
// more.
func readSince(ctx context.Context, client redis.UniversalClient, all []Queue, oldest []*redis.StringCmd) error {
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
