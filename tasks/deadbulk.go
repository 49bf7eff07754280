package tasks

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

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

// replayBulkScript makes a dead letter, the task ARGV[1], wait again. ARGV[2] is appended to its message, and ARGV[3] is
// since when it waits.
const replayBulkScript = `
local state, msg = unpack(redis.call("HMGET", KEYS[1], "state", "msg"))
if state ~= "archived" or redis.call("ZREM", KEYS[2], ARGV[1]) + redis.call("ZREM", KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "state", "pending", "pending_since", ARGV[3], "msg", msg .. ARGV[2])
redis.call("LPUSH", KEYS[4], ARGV[1])
return 1`

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
		p.DueAt, p.Deadline = now.UTC().Truncate(time.Millisecond), nil
		if lines, err = p.Append(lines); err != nil {
			return err
		}
		lines = append(lines, '\n')
	}
	keys := []string{
		asynqbatch.TaskKey(info.Queue, info.ID), archiveKey(info.Queue), wire.DeadKey(info.Queue), "asynq:{" + info.Queue + "}:pending",
	}
	n, err := d.redis.Eval(ctx, replayBulkScript, keys, info.ID, asynqbatch.WithPayload(lines), now.UnixNano()).Int()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	if n == 0 {
		return fmt.Errorf("tasks: %s: %w", info.ID, ErrNotDead)
	}
	return nil
}
