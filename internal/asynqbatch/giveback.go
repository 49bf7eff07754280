package asynqbatch

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"
)

// giveBackScript puts tasks back at the head of the queue from which they were fetched, if they are still whose owner
// is given: the IDs, the owners, and since when they were pending are ARGV[2] and what follows, the records KEYS[4] and what
// follows. The first of them will be the last one to be fetched again. It returns 1 for each that went back. They have
// waited since they came, not since they came back: that is what latencies are measured by.
var giveBackScript = redis.NewScript(`
local now, back = redis.call("TIME"), {}
for i = 4, #KEYS do
  local id, owner, since, done = ARGV[3 * i - 10], ARGV[3 * i - 9], ARGV[3 * i - 8], 0
  local state, has = unpack(redis.call("HMGET", KEYS[i], "state", ARGV[1]))
  if state == "active" and (has or "") == owner and redis.call("LREM", KEYS[2], -1, id) == 1 then
    redis.call("ZREM", KEYS[3], id)
    redis.call("RPUSH", KEYS[1], id)
    if since == "" then since = now[1] .. string.format("%06d", now[2]) .. "000" end
    redis.call("HSET", KEYS[i], "state", "pending", "pending_since", since)
    redis.call("HDEL", KEYS[i], ARGV[1])
    done = 1
  end
  back[i - 3] = done
end
return back`)

// GiveBack puts tasks back that nobody has begun, at the head of their queues in the order in which they were
// fetched. That costs them no try and no lease. Their handlers are to return then, with an error, which asynq hears and
// Redis does not. Tasks that are not this process's any more are left alone. After an error some may have gone back all the
// same; their handlers return as well, and asynq gives back what is still there.
func (c *base) GiveBack(ctx context.Context, keys []string) error {
	return c.giveBack(ctx, keys, c.claims.settle)
}

// mostBack is how many tasks one script gives back, at most: Redis does nothing else meanwhile.
const mostBack = 500

func (c *base) giveBack(ctx context.Context, keys []string, back func(key, owner string)) error {
	type task struct {
		key string
		claim
	}
	queues := map[string][]task{}
	for _, key := range keys {
		if t, ok := c.claims.get(key); ok {
			prefix, _ := queueOf(key)
			queues[prefix] = append(queues[prefix], task{key, t})
		}
	}
	var errs []error
	for prefix, tasks := range queues {
		slices.SortFunc(tasks, func(a, b task) int { return int(b.order) - int(a.order) }) //nolint:gosec // few fetches
		for some := range slices.Chunk(tasks, mostBack) {
			names := append(make([]string, 0, 3+len(some)), prefix+"pending", prefix+"active", prefix+"lease")
			args := append(make([]any, 0, 1+3*len(some)), c.cfg.OwnerField)
			for _, t := range some {
				_, id := queueOf(t.key)
				names, args = append(names, t.key), append(args, id, t.owner, t.since)
			}
			answer, err := giveBackScript.Run(ctx, c.redis, names, args...).Int64Slice()
			if err != nil {
				errs = append(errs, err)
				break // what is older must not overtake what is younger
			}
			for i, t := range some {
				if i < len(answer) && answer[i] == 1 {
					back(t.key, t.owner)
				} else {
					c.claims.lost(t.key, t.owner)
				}
			}
		}
	}
	return errors.Join(errs...)
}
