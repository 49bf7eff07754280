package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
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
	queue := q.asynqQueue(q.cfg.Options)
	err := q.cancel(ctx, queue, id)
	if err == nil || q.cfg.Options.Using != "" || !errors.Is(err, ErrNoTask) && !errors.Is(err, ErrTooLate) {
		return err
	}
	// A message for a named mailer waits in a queue of that mailer's: a worker puts it
	// there if we did not know of the mailer.
	lanes, listErr := q.lanesOf(queue)
	if listErr != nil {
		return listErr
	}
	for _, lane := range lanes {
		switch laneErr := q.cancel(ctx, lane, id); {
		case laneErr == nil:
			return nil
		case !errors.Is(laneErr, ErrNoTask):
			err = laneErr
		}
	}
	return err
}

// lanesOf returns the other queues of asynq's that are this queue for a named mailer.
func (q *Queue) lanesOf(queue string) ([]string, error) {
	all, err := asynq.NewInspectorFromRedisClient(q.redis).Queues()
	if err != nil {
		return nil, unavailable(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return name == queue || plainQueue(name) != queue }), nil
}

// cancelScript returns what became of the task at KEYS[1] with the ID ARGV[1]. Waiting
// tasks are deleted. KEYS[5] tells a worker that still has one, though it lost its lease.
const cancelScript = `
local state, wire, sent, next = unpack(redis.call("HMGET", KEYS[1],
  "state", "` + fieldWire + `", "` + fieldSent + `", "` + fieldReplayed + `"))
if next then return "replayed:" .. next end
if not state then return "none" end
if wire or sent then return "late" end
if state == "active" then
  redis.call("HSET", KEYS[1], "` + fieldCancelled + `", "1")
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

func cancelledKey(queue, id string) string { return "mailpouch:{" + queue + "}:cancelled:" + id }

func (q *Queue) cancel(ctx context.Context, queue, id string) error {
	prefix := "asynq:{" + queue + "}:"
	keys := []string{taskKey(queue, id), prefix + "pending", prefix + "scheduled", prefix + "retry", cancelledKey(queue, id)}
	// No worker holds a task for longer than its time-out.
	answer, err := q.redis.Eval(ctx, cancelScript, keys, id, int(2*q.cfg.TaskTimeout/time.Second)+1).Text()
	if err != nil {
		return unavailable(err)
	}
	switch next, replayed := strings.CutPrefix(answer, "replayed:"); {
	case replayed:
		return q.cancel(ctx, queue, next)
	case answer == "none":
		return fmt.Errorf("tasks: %s: %w", id, ErrNoTask)
	case answer == "late":
		return fmt.Errorf("tasks: %s: %w: it is on the wire, or has ended", id, ErrTooLate)
	}
	return nil
}

// errCancelled ends a task that was cancelled while a worker had it.
var errCancelled = fmt.Errorf("cancelled: %w", asynq.RevokeTask)

// decideScript is the worker's side of cancelScript for a task that ends, or moves on,
// without being on the wire: from now on it is too late. It returns 1 if the task was
// cancelled before.
const decideScript = `
local state, cancelled = unpack(redis.call("HMGET", KEYS[1], "state", "` + fieldCancelled + `"))
if not state then return redis.call("EXISTS", KEYS[2]) end
if cancelled then return 1 end
redis.call("HSET", KEYS[1], "` + fieldWire + `", ARGV[1])
return 0`

// decided makes it too late to cancel a task. The error is errCancelled if it was
// cancelled.
func (w *Worker) decided(ctx context.Context, t ticket) error {
	keys := []string{taskKey(t.queue, t.id), cancelledKey(t.queue, t.id)}
	cancelled, err := w.redis.Eval(ctx, decideScript, keys, "decided").Bool()
	switch {
	case err != nil:
		return unavailable(err)
	case cancelled:
		w.ended(t.ended(outcome{verdict: verdict{action: drop}}))
		return errCancelled
	}
	return nil
}

// goneScript tidies up after a worker that has marked a task which is not there, and
// returns 1 if the task was cancelled.
const goneScript = `
if redis.call("HEXISTS", KEYS[1], "state") == 0 then redis.call("DEL", KEYS[1]) end
return redis.call("EXISTS", KEYS[2])`

// offWireScript takes back that a try is on the wire, unless another one is.
const offWireScript = `
if redis.call("HGET", KEYS[1], "` + fieldWire + `") == ARGV[1] then redis.call("HDEL", KEYS[1], "` + fieldWire + `") end
return 0`

// offWire adds the command that takes back what unsent has written for a job.
func offWire(ctx context.Context, p redis.Pipeliner, j *job) {
	p.Eval(ctx, offWireScript, []string{j.key}, j.token)
}
