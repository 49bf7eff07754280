package tasks

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// QueueStats is QueueStatus with what only graphs show.
type QueueStats struct {
	QueueStatus
	Archived  int   // those of the dead letters that asynq's own tools see
	Completed int   // sent, and kept for a while
	Processed int64 // tries that have ended since there is the queue
	Failed    int64 // those of Processed that failed

	// Due is the time of the first task that waits for one. It is in the past if no worker
	// is there to see that it has come. Zero if none waits.
	Due time.Time
}

// Oldest is how long the task is late that is most so.
func (s QueueStats) Oldest(now time.Time) time.Duration {
	var late time.Duration
	for _, t := range []time.Time{s.Since, s.Due} {
		if !t.IsZero() {
			late = max(late, now.Sub(t))
		}
	}
	return late
}

// ReadStats returns the numbers of every queue that is in Redis, by name. It takes four
// round trips, however many queues there are, reads no message, and every command takes
// Redis the same short time however many tasks there are.
func ReadStats(ctx context.Context, client redis.UniversalClient) ([]QueueStats, error) {
	status, err := ReadStatus(ctx, client)
	if err != nil || len(status) == 0 {
		return nil, err
	}
	all := make([]QueueStats, len(status))
	read := make([]func(), len(status))
	pipe := client.Pipeline()
	for i := range status {
		all[i].QueueStatus = status[i]
		read[i] = statQueue(ctx, pipe, &all[i])
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	for _, f := range read {
		f()
	}
	return all, nil
}

// statQueue asks for the numbers of one queue. read takes the answers over after the round
// trip.
func statQueue(ctx context.Context, pipe redis.Pipeliner, q *QueueStats) (read func()) {
	prefix := "asynq:{" + q.Name + "}:"
	archived, completed := pipe.ZCard(ctx, archiveKey(q.Name)), pipe.ZCard(ctx, prefix+"completed")
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

// CountWorkers counts the worker processes that have shown signs of life lately: a few
// seconds, as asynq has it.
func CountWorkers(ctx context.Context, client redis.UniversalClient) (int, error) {
	alive := &redis.ZRangeBy{Min: strconv.FormatInt(time.Now().Unix(), 10), Max: "+inf"}
	servers, err := client.ZRangeByScore(ctx, "asynq:servers", alive).Result()
	if err != nil {
		return 0, redisconn.Unavailable(err)
	}
	processes := map[string]bool{}
	for _, key := range servers { // asynq:servers:{host:process:server}, several of a worker
		if i := strings.LastIndexByte(key, ':'); i >= 0 {
			processes[key[:i]] = true
		}
	}
	return len(processes), nil
}

// memorySample is how many tasks in each state of a queue are looked at.
const memorySample = 5

// ReadMemory returns about how many octets of Redis's memory each queue takes, from a few
// of its tasks. It is an error where Redis does not allow MEMORY USAGE.
//
// asynq's own Inspector does the same in one script, and more of it, during which Redis
// does nothing else.
func ReadMemory(ctx context.Context, client redis.UniversalClient, queues []string) (map[string]int64, error) {
	samples := make([]*memory, len(queues))
	pipe := client.Pipeline()
	for i, name := range queues {
		samples[i] = askLists(ctx, pipe, name)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	pipe = client.Pipeline()
	for _, m := range samples {
		m.askTasks(ctx, pipe)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	octets := map[string]int64{}
	for _, m := range samples {
		octets[m.queue] = m.octets()
	}
	return octets, nil
}

// memory is the sample of one queue, with an entry for each of its lists.
type memory struct {
	queue string
	lists []*redis.IntCmd         // what the list takes itself
	sizes []*redis.IntCmd         // how many tasks are in it
	ids   []*redis.StringSliceCmd // some of them
	tasks [][]*redis.IntCmd       // what these take
}

func askLists(ctx context.Context, pipe redis.Pipeliner, queue string) *memory {
	m := &memory{queue: queue}
	prefix := "asynq:{" + queue + "}:"
	for _, list := range []string{"pending", "active"} {
		m.lists = append(m.lists, pipe.MemoryUsage(ctx, prefix+list))
		m.sizes = append(m.sizes, pipe.LLen(ctx, prefix+list))
		m.ids = append(m.ids, pipe.LRange(ctx, prefix+list, 0, memorySample-1))
	}
	for _, set := range []string{prefix + "scheduled", prefix + "retry", prefix + "completed", archiveKey(queue), wire.DeadKey(queue)} {
		m.lists = append(m.lists, pipe.MemoryUsage(ctx, set))
		m.sizes = append(m.sizes, pipe.ZCard(ctx, set))
		m.ids = append(m.ids, pipe.ZRange(ctx, set, 0, memorySample-1))
	}
	return m
}

func (m *memory) askTasks(ctx context.Context, pipe redis.Pipeliner) {
	m.tasks = make([][]*redis.IntCmd, len(m.ids))
	for i, ids := range m.ids {
		for _, id := range ids.Val() {
			m.tasks[i] = append(m.tasks[i], pipe.MemoryUsage(ctx, asynqbatch.TaskKey(m.queue, id)))
		}
	}
}

func (m *memory) octets() int64 {
	var sum int64
	for i, tasks := range m.tasks {
		var octets, seen int64
		for _, t := range tasks {
			if t.Err() == nil { // else it has gone meanwhile
				octets += t.Val()
				seen++
			}
		}
		if seen > 0 {
			sum += octets / seen * m.sizes[i].Val()
		}
		sum += m.lists[i].Val()
	}
	return sum
}
