package asynqbatch

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// giveBackScript puts tasks back at the head of the queue from which they were fetched, if they are still whose owner
// is given: the IDs, the owners, and since when they were pending are ARGV[2] and what follows, the records KEYS[4] and what
// follows; the last argument is what the keys of tasks begin with. The first of them will be the last one to be fetched again. It returns 1 for each that went back. They have
// waited since they came, not since they came back: that is what latencies are measured by. Of a queue that is paused all
// workers give back what they have, one after the other: there each task goes behind those that came before it.
var giveBackScript = redis.NewScript(`
local now, back = redis.call("TIME"), {}
local sorted, older = redis.call("EXISTS", string.sub(KEYS[1], 1, -8) .. "paused") == 1, {}
local function came(id) return tonumber(redis.call("HGET", ARGV[#ARGV] .. id, "pending_since") or 0) or 0 end
if sorted and #KEYS > 3 then
  local newest = tonumber(ARGV[4]) or 0
  while #older < ` + strconv.Itoa(mostSorted) + ` do
    local id = redis.call("LINDEX", KEYS[1], -1)
    if not id or came(id) >= newest then break end
    older[#older + 1] = {id, came(id)}
    redis.call("RPOP", KEYS[1])
  end
end
local function olderThan(at)
  while #older > 0 and older[#older][2] > at do redis.call("RPUSH", KEYS[1], table.remove(older)[1]) end
end
for i = 4, #KEYS do
  local id, owner, since, done = ARGV[3 * i - 10], ARGV[3 * i - 9], ARGV[3 * i - 8], 0
  local state, has = unpack(redis.call("HMGET", KEYS[i], "state", ARGV[1]))
  if state == "active" and (has or "") == owner and redis.call("LREM", KEYS[2], -1, id) == 1 then
    redis.call("ZREM", KEYS[3], id)
    if sorted then olderThan(tonumber(since) or 0) end
    redis.call("RPUSH", KEYS[1], id)
    if since == "" then since = now[1] .. string.format("%06d", now[2]) .. "000" end
    redis.call("HSET", KEYS[i], "state", "pending", "pending_since", since)
    redis.call("HDEL", KEYS[i], ARGV[1])
    done = 1
  end
  back[i - 3] = done
end
olderThan(-1)
return back`)

// mostSorted is how many tasks at the head of a paused queue are compared with those that come back, at most.
const mostSorted = 2000

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
			args := append(make([]any, 0, 2+3*len(some)), c.cfg.OwnerField)
			for _, t := range some {
				_, id := queueOf(t.key)
				names, args = append(names, t.key), append(args, id, t.owner, t.since)
			}
			args = append(args, prefix+"t:")
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
