package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A message can be cancelled until it is on the wire. Who is first is decided in Redis, in
// the task's record: a worker writes the wire field before it reads the cancelled one,
// and a cancellation writes the latter only if it does not see the former. So either the
// worker sees the cancellation and drops the message, or the cancellation sees that
// it is too late. When a try is known to have ended without delivery the wire field
// goes. After one whose end is not known it stays, and the message cannot be cancelled
// until a later try has ended, for it may have been delivered.

// ErrTooLate says that a message cannot be cancelled: it is on the wire, was sent, may
// have been sent, or is a dead letter.
var ErrTooLate = errors.New("too late to cancel")

// ErrNoTask says that there is no task with an ID. A task is gone when its message
// was sent, unless it has a retention.
var ErrNoTask = errors.New("no such task")

// Cancel takes a message back by the ID that Enqueue returned, from the queue that
// Options name. Nil means that it has not been sent and will not be: it was waiting, or
// a worker that has it will drop it. Else the error is ErrTooLate, ErrNoTask, or
// says that Redis could not be asked. An idempotency key is free again afterwards.
func (q *Queue) Cancel(ctx context.Context, id string) error {
	name := q.queueOf(id)
	err := q.cancel(ctx, name, id)
	for shard := 1; errors.Is(err, ErrNoTask) && name.Shard > 0 && shard <= q.cfg.Shards; shard++ {
		name.Shard = shard // what came of another task is where that was
		err = q.cancel(ctx, name, id)
	}
	if err == nil || name.Mailer != "" || !errors.Is(err, ErrNoTask) && !errors.Is(err, ErrTooLate) {
		return err
	}
	// A message for a named mailer waits in a queue of that mailer's: a worker puts it
	// there if we did not know of the mailer.
	others, listErr := q.namesakes(name)
	if listErr != nil {
		return listErr
	}
	for _, other := range others {
		switch otherErr := q.cancel(ctx, other, id); {
		case otherErr == nil:
			return nil
		case !errors.Is(otherErr, ErrNoTask):
			err = otherErr
		}
	}
	return err
}

// namesakes are the queues of the same name for named mailers, all parts of them.
func (q *Queue) namesakes(name wire.QueueName) ([]wire.QueueName, error) {
	all, err := asynq.NewInspectorFromRedisClient(q.redis).Queues()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	var others []wire.QueueName
	for _, asynqs := range all {
		other := wire.ParseQueueName(asynqs)
		if other.Mailer != "" && other.Queue == name.Queue && !other.Bulk {
			others = append(others, other)
		}
	}
	return others, nil
}

// cancelScript returns what became of the task at KEYS[1] with the ID ARGV[1]. Waiting
// tasks are deleted. KEYS[5] tells a worker that still has one, though it lost its lease.
const cancelScript = `
local state, wire, sent, next = unpack(redis.call("HMGET", KEYS[1],
  "state", "` + wire.FieldWire + `", "` + wire.FieldSent + `", "` + wire.FieldReplayed + `"))
if next then return "replayed:" .. next end
if not state then return "none" end
if wire or sent then return "late" end
if state == "active" then
  redis.call("HSET", KEYS[1], "` + wire.FieldCancelled + `", "1")
elseif state == "pending" then
  redis.call("LREM", KEYS[2], 1, ARGV[1])
  redis.call("DEL", KEYS[1])
elseif state == "scheduled" then
  redis.call("ZREM", KEYS[3], ARGV[1])
  redis.call("DEL", KEYS[1])
elseif state == "retry" then
  redis.call("ZREM", KEYS[4], ARGV[1])
  redis.call("DEL", KEYS[1])
else
  return "late"
end
redis.call("SET", KEYS[5], "1", "EX", ARGV[2])
return "cancelled"`

// cancel looks for a task of the message's own first: one of a bulk task may have become
// that.
func (q *Queue) cancel(ctx context.Context, name wire.QueueName, id string) error {
	queue := name.String()
	prefix := "asynq:{" + queue + "}:"
	keys := []string{asynqbatch.TaskKey(queue, id), prefix + "pending", prefix + "scheduled", prefix + "retry", wire.CancelledKey(queue, id)}
	answer, err := q.redis.Eval(ctx, cancelScript, keys, id, q.cancelledFor()).Text()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	next, replayed := strings.CutPrefix(answer, "replayed:")
	if replayed {
		return q.cancel(ctx, name, next)
	}
	if task, index, ok := wire.SplitID(id); ok && answer == "none" {
		name.Bulk = true
		if answer, err = q.cancelInBulk(ctx, name.String(), task, index); err != nil {
			return err
		}
	}
	switch answer {
	case "none":
		return fmt.Errorf("tasks: %s: %w", id, ErrNoTask)
	case "late":
		return fmt.Errorf("tasks: %s: %w: it is on the wire, or has ended", id, ErrTooLate)
	}
	return nil
}

// cancelledFor is how long, in seconds, a worker can still have a task that was
// cancelled: none holds one for longer than its time-out.
func (q *Queue) cancelledFor() int { return int(2*q.cfg.TaskTimeout/time.Second) + 1 }

// cancelInBulkScript is cancelScript for a message of the bulk task at KEYS[1]. The task
// stays; the worker leaves the message out.
const cancelInBulkScript = `
local state, wire, sent = unpack(redis.call("HMGET", KEYS[1], "state", ARGV[1], ARGV[2]))
if not state then return "none" end
if wire or sent or state == "completed" or state == "archived" then return "late" end
redis.call("HSET", KEYS[1], ARGV[3], "1")
redis.call("SET", KEYS[2], "1", "EX", ARGV[4])
return "cancelled"`

func (q *Queue) cancelInBulk(ctx context.Context, queue, task string, index int) (string, error) {
	info, err := asynq.NewInspectorFromRedisClient(q.redis).GetTaskInfo(queue, task)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return "none", nil
	}
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	if index >= bytes.Count(info.Payload, []byte("\n")) {
		return "none", nil
	}
	id := wire.MessageID(task, index)
	slot := id[len(task):]
	keys := []string{asynqbatch.TaskKey(queue, task), wire.CancelledKey(queue, id)}
	answer, err := q.redis.Eval(ctx, cancelInBulkScript, keys, wire.FieldWire+slot, wire.FieldSent+slot, wire.FieldCancelled+slot, q.cancelledFor()).Text()
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	return answer, nil
}
