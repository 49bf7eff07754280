package tasks

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A bulk task is a dead letter if all its messages have expired while it waited, or if a person has archived it. Its
// messages have not left it, so it is replayed as a whole, with what the ledger has of it.

// summarizeBulk fills in what the payloads of a bulk task say.
func summarizeBulk(l *DeadLetter, payload []byte) {
	for line := range bytes.Lines(payload) {
		l.Messages++
		o, _ := wire.ReadOutline(line)
		to := o.Recipients
		for _, list := range [][]string{o.To, o.Cc, o.Bcc} {
			if len(o.Recipients) == 0 {
				to = append(to, list...)
			}
		}
		l.Recipients = append(l.Recipients, to...)
	}
}

// replayBulkScript puts the dead letter ARGV[1] back into the list KEYS[4], where it waits since ARGV[2]. Its record is
// KEYS[3], and ARGV[3] is appended to its message. It returns how many it has found.
var replayBulkScript = redis.NewScript(`
local n = redis.call("ZREM", KEYS[1], ARGV[1]) + redis.call("ZREM", KEYS[2], ARGV[1])
local msg = redis.call("HGET", KEYS[3], "msg")
if n > 0 and msg then
  redis.call("HSET", KEYS[3], "state", "pending", "pending_since", ARGV[2], "msg", msg .. ARGV[3])
  redis.call("LPUSH", KEYS[4], ARGV[1])
end
return n`)

// replayBulk is Replay for a bulk task. It stays the same task: what of it was sent, cancelled or moved on stays so.
func (d *DeadLetters) replayBulk(ctx context.Context, info *asynq.TaskInfo) error {
	now := time.Now()
	var lines []byte
	for line := range bytes.Lines(info.Payload) {
		p, err := wire.Decode(line, info.Headers)
		if err != nil {
			lines = append(lines, line...) // a worker makes a dead letter of it
			continue
		}
		p.DueAt, p.Deadline = wire.Due(now), nil
		if lines, err = p.Append(lines); err != nil {
			return err
		}
		lines = append(lines, '\n')
	}
	keys := []string{archiveKey(info.Queue), wire.DeadKey(info.Queue), asynqbatch.TaskKey(info.Queue, info.ID), pendingKey(info.Queue)}
	n, err := replayBulkScript.Run(ctx, d.redis, keys, info.ID, now.UnixNano(), asynqbatch.WithPayload(lines)).Int()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	if n == 0 {
		return fmt.Errorf("tasks: %s: %w", info.ID, ErrNotDead)
	}
	return nil
}
