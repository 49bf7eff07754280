package asynqbatch

import (
	"context"
	"strings"
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

// putOffScript moves an active task, with the ID ARGV[2], from the lists KEYS[1] and KEYS[2] to the scheduled ones,
// KEYS[3], if its lease is still ARGV[1], and counts how often in its record KEYS[4]. The pause doubles with each time,
// from ARGV[3] to ARGV[4]. It returns the pause, or 0 if the task is another's.
var putOffScript = redis.NewScript(`
local lease = redis.call("ZSCORE", KEYS[2], ARGV[2])
if redis.call("HGET", KEYS[4], "state") ~= "active" or not lease or tonumber(lease) < tonumber(ARGV[1]) then return 0 end
if redis.call("LREM", KEYS[1], -1, ARGV[2]) == 0 then return 0 end
redis.call("ZREM", KEYS[2], ARGV[2])
local n = redis.call("HINCRBY", KEYS[4], "` + wire.FieldPutOff + `", 1)
local pause = math.min(ARGV[3] * 2 ^ math.min(n - 1, 20), tonumber(ARGV[4]))
redis.call("ZADD", KEYS[3], redis.call("TIME")[1] + pause, ARGV[2])
redis.call("HSET", KEYS[4], "state", "scheduled")
return pause`)

// PutOff puts a task off that its handler can do nothing with, and returns for how long: half a minute the first time,
// then twice as long each time, at most ten minutes. That costs the task no try. The handler is to return then, with
// an error, which asynq hears and Redis does not. It is 0 if the task is not this process's any more.
func (c *Client) PutOff(ctx context.Context, key string) (time.Duration, error) {
	t, ok := c.claims.get(key)
	if !ok {
		return 0, nil
	}
	prefix := strings.TrimSuffix(t.keys[fetchActive], "active")
	keys := []string{prefix + "active", prefix + "lease", prefix + "scheduled", key}
	pause, err := putOffScript.Run(ctx, c.redis, keys, t.lease, t.id, int(PutOffMin/time.Second), int(PutOffMax/time.Second)).Int()
	if pause > 0 {
		c.claims.settle(key)
	}
	return time.Duration(pause) * time.Second, err
}
