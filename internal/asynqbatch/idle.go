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

// asleep answers asynq's question about a queue that is known to have nothing, as Redis would. It is nil for all else.
func (b *broker) asleep(keys []string, args []any) *redis.Cmd {
	if b.client.cfg.Asleep == nil || len(keys) == 0 {
		return nil
	}
	switch {
	case fetchesTask(keys, args):
		if b.client.cfg.Asleep(queueOf(keys[0])) {
			return redis.NewCmdResult(nil, redis.Nil)
		}
	case forwardsTasks(keys, args), deletesExpired(keys, args):
		if b.client.cfg.Asleep(queueOf(keys[0])) {
			return redis.NewCmdResult(int64(0), nil)
		}
	}
	return nil
}

// took notes that a task was taken from a list of a queue.
func (b *broker) took(list string) {
	if b.client.cfg.Took != nil {
		b.client.cfg.Took(queueOf(list))
	}
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

// queueOf is the name of the queue that has that key, "" if none has.
func queueOf(key string) string {
	_, rest, ok := strings.Cut(key, "{")
	name, _, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return ""
	}
	return name
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
	for {
		n, err := deleteExpiredScript.Run(ctx, client, []string{"asynq:{" + queue + "}:completed"}, now.Unix(), TaskKey(queue, ""), expiredAtOnce).Int()
		if err != nil || n < expiredAtOnce {
			return err
		}
	}
}
