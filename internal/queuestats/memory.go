package queuestats

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// memorySample is how many tasks in each state of a queue are looked at.
const memorySample = 5

// Memory returns about how many bytes of Redis's memory each queue takes, from a few
// of its tasks. It is an error where Redis does not allow MEMORY USAGE.
//
// asynq's own Inspector does the same in one script, and more of it, during which Redis
// does nothing else.
func Memory(ctx context.Context, client redis.UniversalClient, queues []string) (map[string]int64, error) {
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
	bytes := map[string]int64{}
	for _, m := range samples {
		bytes[m.queue] = m.bytes()
	}
	return bytes, nil
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
	for _, set := range []string{prefix + "scheduled", prefix + "retry", prefix + "completed", prefix + "archived", wire.DeadKey(queue)} {
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

func (m *memory) bytes() int64 {
	var sum int64
	for i, tasks := range m.tasks {
		var bytes, seen int64
		for _, t := range tasks {
			if t.Err() == nil { // else it has gone meanwhile
				bytes += t.Val()
				seen++
			}
		}
		if seen > 0 {
			sum += bytes / seen * m.sizes[i].Val()
		}
		sum += m.lists[i].Val()
	}
	return sum
}
