package asynqbatch

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// An asynq server asks each of its queues many times a second for a task, once a second for those that have come
// due, and now and then for those that are kept no longer. For a queue of which somebody knows that it has nothing, these
// are answered here. The tasks whose leases are over it lists once a minute; that is left to it.

// answerAsleep answers what asynq wants of a queue that is asleep, as Redis would, but for a task: see fetcher.asleep. It is
// nil for all else.
func answerAsleep(asleep func(queue string) bool, keys []string, args []any) *redis.Cmd {
	if asleep == nil || len(keys) == 0 {
		return nil
	}
	if (forwardsTasks(keys, args) || deletesExpired(keys, args)) && asleep(nameIn(keys[0])) {
		return redis.NewCmdResult(int64(0), nil)
	}
	return nil
}

// forwardsTasks reports whether a script moves tasks that have come due to the list of pending ones. The arguments are
// the time, twice, and what two kinds of keys begin with.
func forwardsTasks(keys []string, args []any) bool {
	return len(keys) == 2 && len(args) == 4 && strings.HasSuffix(keys[1], "}:pending") &&
		(strings.HasSuffix(keys[0], "}:scheduled") || strings.HasSuffix(keys[0], "}:retry"))
}

// deletesExpired reports whether a script deletes tasks that were completed and are kept no longer. The arguments are
// the time, what their keys begin with, and how many are deleted at most.
func deletesExpired(keys []string, args []any) bool {
	return len(keys) == 1 && len(args) == 3 && strings.HasSuffix(keys[0], "}:completed")
}

// expiredAtOnce is how many tasks are deleted in one script, as asynq has it.
const expiredAtOnce = 100

// deleteExpiredScript is asynq's.
var deleteExpiredScript = redis.NewScript(`
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1], "LIMIT", 0, tonumber(ARGV[3]))
for _, id in ipairs(ids) do
  redis.call("DEL", ARGV[2] .. id)
  redis.call("ZREM", KEYS[1], id)
end
return table.getn(ids)`)

// DeleteExpired deletes those completed tasks of a queue that are kept no longer, as a server of that queue would.
func DeleteExpired(ctx context.Context, client redis.UniversalClient, queue string, now time.Time) error {
	prefix := "asynq:{" + queue + "}:"
	for {
		n, err := deleteExpiredScript.Run(ctx, client, []string{prefix + "completed"}, now.Unix(), prefix+"t:", expiredAtOnce).Int()
		if err != nil || n < expiredAtOnce {
			return err
		}
	}
}
