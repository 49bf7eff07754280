package asynqbatch

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// giveBackScript puts tasks back at the head of the queue from which they were fetched, if they are still whose owner
// is given: the IDs, the owners, and since when they were pending are ARGV[3] and what follows, the records KEYS[5] and what
// follows. ARGV[1] is the field of the owner, ARGV[2] what the keys of tasks begin with. The first of them will be the last one to be fetched again. It returns 1 for each that went back. They have
// waited since they came, not since they came back: that is what latencies are measured by. It differs in a few nanoseconds, so that who has seen
// such a task in no list knows later that it was taken meanwhile (see package sweep). Of a queue that is paused all
// workers give back what they have, one after the other: there each task goes behind those that came before it. The tasks of
// a mailing that is paused, by KEYS[4], or that is coming back, are set aside, where they have their order.
var giveBackScript = redis.NewScript(luaAside + `
local now, back = redis.call("TIME"), {}
local sorted, older = redis.call("EXISTS", string.sub(KEYS[1], 1, -8) .. "paused") == 1, {}
local pauses = redis.call("EXISTS", KEYS[4]) == 1
local function came(id) return tonumber(redis.call("HGET", ARGV[2] .. id, "pending_since") or 0) or 0 end
if sorted and #KEYS > 4 then
  local newest = tonumber(ARGV[5]) or 0
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
local function putBack(id, key, since)
  if pauses then
    local mailing, state = mailingState(KEYS[4], redis.call("HGET", key, "msg"))
    if state ~= "" then return putAside(string.sub(KEYS[1], 1, -8), KEYS[4], mailing, id, key, since) end
  end
  if sorted then olderThan(tonumber(since) or 0) end
  redis.call("RPUSH", KEYS[1], id)
  redis.call("HSET", key, "state", "pending")
end
for i = 5, #KEYS do
  local id, owner, since, done = ARGV[3 * i - 12], ARGV[3 * i - 11], ARGV[3 * i - 10], 0
  local state, has = unpack(redis.call("HMGET", KEYS[i], "state", ARGV[1]))
  if state == "active" and (has or "") == owner and redis.call("LREM", KEYS[2], -1, id) == 1 then
    if since == "" then since = now[1] .. string.format("%06d", now[2]) .. "000" else since = touched(since) end
    redis.call("ZREM", KEYS[3], id)
    putBack(id, KEYS[i], since)
    redis.call("HSET", KEYS[i], "pending_since", since)
    redis.call("HDEL", KEYS[i], ARGV[1])
    done = 1
  end
  back[i - 4] = done
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
			names := append(make([]string, 0, 4+len(some)), prefix+"pending", prefix+"active", prefix+"lease", wire.PausesKey(nameIn(prefix)))
			args := append(make([]any, 0, 2+3*len(some)), c.cfg.OwnerField, prefix+"t:")
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
