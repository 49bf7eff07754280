package asynqbatch

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// awaitRetryScript moves the task ARGV[1] from the scheduled set KEYS[1] to those that are tried again, KEYS[2], for the
// same time, and writes into its record KEYS[3] what is appended to its message, ARGV[2], and the field ARGV[3].
var awaitRetryScript = redis.NewScript(`
local at = redis.call("ZSCORE", KEYS[1], ARGV[1])
if not at then return 0 end
redis.call("ZREM", KEYS[1], ARGV[1])
redis.call("ZADD", KEYS[2], at, ARGV[1])
redis.call("HSET", KEYS[3], "state", "retry", "msg", redis.call("HGET", KEYS[3], "msg") .. ARGV[2], ARGV[3], ARGV[4])
return 1`)

// AwaitRetry makes a task that is scheduled one that waits for its next try, at the same time: it carries a message
// that has failed in another task, for that reason. The field of its record is set to value. A task that is not scheduled
// any more is left alone.
func AwaitRetry(ctx context.Context, client redis.UniversalClient, queue, id, reason string, failed time.Time, field, value string) error {
	prefix := "asynq:{" + queue + "}:"
	keys := []string{prefix + "scheduled", prefix + "retry", TaskKey(queue, id)}
	return awaitRetryScript.Run(ctx, client, keys, id, Failed(reason, failed), field, value).Err()
}
