// Package presence says which workers live and which queues they serve: each worker writes that to Redis every few
// seconds, under an ID of its own. asynq's list of servers does not say so: a worker's servers run only while it has
// mail, and two containers may have the same host name and process number.
package presence

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

const (
	// Every is how often a worker says that it lives.
	Every = 5 * time.Second

	// lives is for how long it is believed: three times in a row may fail.
	lives = 4 * Every
)

// Worker is what a worker process says of itself. It serves the queues of the default mailer and of each named one.
type Worker struct {
	ID      string    `json:"id"` // random: no other process has it
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Mailers []string  `json:"mailers,omitempty"` // beside the default one
	Queues  []string  `json:"queues"`            // as producers call them
	Shards  int       `json:"shards,omitempty"`  // parts of each queue, and the queue in one piece; 0: that alone
}

// New returns a Worker that is this process.
func New() Worker {
	host, _ := os.Hostname()
	return Worker{ID: rand.Text(), Host: host, PID: os.Getpid(), Started: time.Now().UTC().Truncate(time.Millisecond)}
}

// Serves reports whether the worker takes tasks from a queue.
func (w Worker) Serves(name wire.QueueName) bool {
	return (name.Mailer == "" || slices.Contains(w.Mailers, name.Mailer)) && slices.Contains(w.Queues, name.Queue) && name.Shard <= w.Shards
}

// Announce writes that the worker lives, and the names of its queues to asynq's set of names: that may have been lost,
// and asynq's own client writes a name once.
func Announce(ctx context.Context, client redis.UniversalClient, w Worker, queues []string) error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	names := make([]any, len(queues))
	for i, name := range queues {
		names[i] = name
	}
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, wire.WorkerKey(w.ID), data, lives)
		pipe.SAdd(ctx, wire.WorkersKey, w.ID)
		if len(names) > 0 {
			pipe.SAdd(ctx, wire.QueuesKey, names...)
		}
		return nil
	})
	return unavailable(err)
}

// Leave writes that the worker lives no more.
func Leave(ctx context.Context, client redis.UniversalClient, w Worker) error {
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Del(ctx, wire.WorkerKey(w.ID))
		pipe.SRem(ctx, wire.WorkersKey, w.ID)
		return nil
	})
	return unavailable(err)
}

// Read returns the workers that live, by when they were started. It takes two round trips.
func Read(ctx context.Context, client redis.UniversalClient) ([]Worker, error) {
	ids, err := client.SMembers(ctx, wire.WorkersKey).Result()
	if err != nil || len(ids) == 0 {
		return nil, unavailable(err)
	}
	records := make([]*redis.StringCmd, len(ids))
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			records[i] = pipe.Get(ctx, wire.WorkerKey(id))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, unavailable(err)
	}
	var workers []Worker
	for _, record := range records {
		var w Worker
		if data, err := record.Bytes(); err == nil && json.Unmarshal(data, &w) == nil {
			workers = append(workers, w)
		}
	}
	slices.SortFunc(workers, func(a, b Worker) int { return a.Started.Compare(b.Started) })
	return workers, nil
}

// Sweep strikes out the IDs of workers that live no more. One that does writes its own anew.
func Sweep(ctx context.Context, client redis.UniversalClient) error {
	ids, err := client.SMembers(ctx, wire.WorkersKey).Result()
	if err != nil || len(ids) == 0 {
		return unavailable(err)
	}
	alive := make([]*redis.IntCmd, len(ids))
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			alive[i] = pipe.Exists(ctx, wire.WorkerKey(id))
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	for i, id := range ids {
		if alive[i].Val() == 0 {
			if err := client.SRem(ctx, wire.WorkersKey, id).Err(); err != nil {
				return unavailable(err)
			}
		}
	}
	return nil
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return redisconn.Unavailable(err)
}
