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
	"strconv"
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

	Version string   `json:"version,omitempty"`
	Reads   int      `json:"reads,omitempty"` // the newest version of payloads that it reads; 0: the first one
	Sent    int64    `json:"sent"`            // messages since Started
	Rate    float64  `json:"rate"`            // messages a second since it was written before
	Held    []string `json:"held,omitempty"`  // mailers whose relay takes no mail; default is the one without a name
}

// Counts is what workers did with messages: tries that ended so.
type Counts struct {
	Sent    int64 `json:"sent"`    // accepted by the relay
	Retried int64 `json:"retried"` // failed, and another try comes
	Dead    int64 `json:"dead"`    // dead letters
	Refused int64 `json:"refused"` // recipients refused though the message was accepted for others
}

// Add is both together.
func (c Counts) Add(d Counts) Counts {
	return Counts{c.Sent + d.Sent, c.Retried + d.Retried, c.Dead + d.Dead, c.Refused + d.Refused}
}

func (c Counts) fields() map[string]int64 {
	return map[string]int64{"sent": c.Sent, "retried": c.Retried, "dead": c.Dead, "refused": c.Refused}
}

// Day is what all workers did on a day, in UTC.
type Day struct {
	Date string `json:"date"` // 2026-11-26
	Counts
}

// keptDays is for how long the counts of a day are kept.
const keptDays = 35 * 24 * time.Hour

// Days returns the counts of so many days, today's last, in one round trip.
func Days(ctx context.Context, client redis.UniversalClient, n int, now time.Time) ([]Day, error) {
	days, answers := make([]Day, n), make([]*redis.MapStringStringCmd, n)
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range days {
			days[i].Date = now.UTC().AddDate(0, 0, i-n+1).Format(time.DateOnly)
			answers[i] = p.HGetAll(ctx, wire.DayKey(days[i].Date))
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	for i, answer := range answers {
		for name, field := range map[string]*int64{"sent": &days[i].Sent, "retried": &days[i].Retried, "dead": &days[i].Dead, "refused": &days[i].Refused} {
			*field, _ = strconv.ParseInt(answer.Val()[name], 10, 64) // 0 if there is none
		}
	}
	return days, nil
}

// count adds to the counts of today.
func count(ctx context.Context, p redis.Pipeliner, c Counts) {
	if c == (Counts{}) {
		return
	}
	key := wire.DayKey(time.Now().UTC().Format(time.DateOnly))
	for name, n := range c.fields() {
		if n != 0 {
			p.HIncrBy(ctx, key, name, n)
		}
	}
	p.Expire(ctx, key, keptDays)
}

// New returns a Worker that is this process.
func New() Worker {
	host, _ := os.Hostname()
	return Worker{ID: rand.Text(), Host: host, PID: os.Getpid(), Reads: wire.Newest, Started: time.Now().UTC().Truncate(time.Millisecond)}
}

// Serves reports whether the worker takes tasks from a queue.
func (w Worker) Serves(name wire.QueueName) bool {
	return (name.Mailer == "" || slices.Contains(w.Mailers, name.Mailer)) && slices.Contains(w.Queues, name.Queue) && name.Shard <= w.Shards
}

// Announce writes that the worker lives, and the names of its queues to asynq's set of names: that may have been lost,
// and asynq's own client writes a name once. What the worker did since the last time is added to the counts of the day.
func Announce(ctx context.Context, client redis.UniversalClient, w Worker, queues []string, did Counts) error {
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
		count(ctx, pipe, did)
		return nil
	})
	return unavailable(err)
}

// Leave writes that the worker lives no more, and what it did since the last time.
func Leave(ctx context.Context, client redis.UniversalClient, w Worker, did Counts) error {
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Del(ctx, wire.WorkerKey(w.ID))
		pipe.SRem(ctx, wire.WorkersKey, w.ID)
		count(ctx, pipe, did)
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

// Reads is which versions of payloads the workers that live can read: all of them up to Lowest, one of them up to Highest.
// The zero value is that nobody knows.
type Reads struct{ Lowest, Highest int }

// Known reports whether it is known.
func (r Reads) Known() bool { return r.Highest > 0 }

// ReadsOf returns what these workers read. If there are none that is what this program reads: those that come are most likely no older.
func ReadsOf(workers []Worker) Reads {
	r := Reads{wire.Newest, 0}
	for _, w := range workers {
		reads := max(w.Reads, 1)
		r.Lowest, r.Highest = min(r.Lowest, reads), max(r.Highest, reads)
	}
	if len(workers) == 0 {
		r.Highest = wire.Newest
	}
	return r
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
