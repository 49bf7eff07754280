package asynqbatch

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// The pauses of a task that nobody here can do anything with. It may be another program's, which has a server for it,
// or one for a newer version of this program.
const (
	PutOffMin = 30 * time.Second
	PutOffMax = 10 * time.Minute
)

// putOffScript moves an active task, with the ID ARGV[1], from the lists KEYS[1] and KEYS[2] to the scheduled ones,
// KEYS[3], if the field ARGV[2] of its record KEYS[4] is the owner ARGV[3]. If ARGV[5] is not 0 it counts there how often, and the
// pause doubles with each time, from ARGV[4] to ARGV[5]; else it is ARGV[4]. It returns the pause, or 0 if the task is another's.
var putOffScript = redis.NewScript(`
local state, owner = unpack(redis.call("HMGET", KEYS[4], "state", ARGV[2]))
if state ~= "active" or (owner or "") ~= ARGV[3] or redis.call("LREM", KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call("ZREM", KEYS[2], ARGV[1])
local pause = tonumber(ARGV[4])
if ARGV[5] ~= "0" then
  local n = redis.call("HINCRBY", KEYS[4], "` + wire.FieldPutOff + `", 1)
  pause = math.min(pause * 2 ^ math.min(n - 1, 20), tonumber(ARGV[5]))
end
redis.call("ZADD", KEYS[3], redis.call("TIME")[1] + pause, ARGV[1])
redis.call("HSET", KEYS[4], "state", "scheduled")
redis.call("HDEL", KEYS[4], ARGV[2])
return pause`)

// PutOff puts a task off that its handler can do nothing with, and returns for how long: half a minute the first time,
// then twice as long each time, at most ten minutes. That costs the task no try. The handler is to return then, with
// an error, which asynq hears and Redis does not. It is 0 if the task is not this process's any more.
func (c *base) PutOff(ctx context.Context, key string) (time.Duration, error) {
	return c.putOff(ctx, key, PutOffMin, PutOffMax)
}

// PutLater lets a task wait among the scheduled ones for that time, in whole seconds, at least one. It costs the task no try. The
// handler is to return then, with an error, which asynq hears and Redis does not.
func (c *base) PutLater(ctx context.Context, key string, delay time.Duration) error {
	_, err := c.putOff(ctx, key, max(delay.Round(time.Second), time.Second), 0)
	return err
}

func (c *base) putOff(ctx context.Context, key string, least, most time.Duration) (time.Duration, error) {
	t, ok := c.claims.get(key)
	if !ok {
		return 0, nil
	}
	prefix, id := queueOf(key)
	keys := []string{prefix + "active", prefix + "lease", prefix + "scheduled", key}
	pause, err := putOffScript.Run(ctx, c.redis, keys, id, c.cfg.OwnerField, t.owner, int(least/time.Second), int(most/time.Second)).Int()
	switch {
	case err != nil:
		return 0, err
	case pause > 0:
		c.claims.settle(key, t.owner)
	default:
		c.claims.lost(key, t.owner)
	}
	return time.Duration(pause) * time.Second, nil
}
