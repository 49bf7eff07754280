package asynqbatch

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// Enqueuer is the Redis client for asynq's client of a program that queues tasks: its script also wakes a worker that
// waits for a task of the queue. What is in Redis is what asynq leaves.
type Enqueuer struct {
	redis.UniversalClient
	denied *atomic.Bool
}

// NewEnqueuer returns an Enqueuer on the given Redis, which it does not close.
func NewEnqueuer(client redis.UniversalClient) *Enqueuer {
	return &Enqueuer{client, new(atomic.Bool)}
}

// Denied reports whether Redis did not let a hint be published when a task was queued last: a right of the user is missing.
func (e *Enqueuer) Denied() bool { return e.denied.Load() }

// enqueueScript does what asynq's does for the tasks of a queue, whose IDs are ARGV[5], ARGV[7] and so on, and each of which
// follows its ID. KEYS are the pending ones and wire.WaitingKey. ARGV[1] is the time in nanoseconds, ARGV[2] what the keys of
// tasks begin with, ARGV[3] what the channels of workers do, and ARGV[4] the name of the queue. It answers a byte for each task: 1, or 0
// if its ID is there, and "d" if the hint may not be published.
var enqueueScript = redis.NewScript(`
local answer, ids = {}, {}
for i = 5, #ARGV, 2 do
  local key = ARGV[2] .. ARGV[i]
  if redis.call("EXISTS", key) == 1 then
    answer[#answer + 1] = "0"
  else
    redis.call("HSET", key, "msg", ARGV[i + 1], "state", "pending", "pending_since", ARGV[1])
    ids[#ids + 1], answer[#answer + 1] = ARGV[i], "1"
  end
end
if #ids > 0 then
  redis.call("LPUSH", KEYS[1], unpack(ids))
  local waits = redis.call("GETDEL", KEYS[2])
  if waits then
    local heard = redis.pcall("PUBLISH", ARGV[3] .. waits, ARGV[4])
    if type(heard) == "table" then answer[#answer + 1] = "d" end
  end
end
return table.concat(answer)`)

// EvalSha implements redis.Scripter.
func (e *Enqueuer) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if !enqueuesTask(keys, args) {
		return e.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	answer, err := e.enqueue(ctx, nameIn(keys[1]), args[2], args[1], args[0])
	if err != nil {
		return redis.NewCmdResult(nil, err)
	}
	return redis.NewCmdResult(int64(answer[0]-'0'), nil)
}

// enqueuesTask reports whether a script of asynq's puts a task into the list of pending ones. The arguments are the task, its
// ID and the time.
func enqueuesTask(keys []string, args []any) bool {
	return len(keys) == 2 && len(args) == 3 && strings.HasSuffix(keys[1], "}:pending") && strings.Contains(keys[0], "}:t:")
}

var errNotEnqueued = errors.New("asynqbatch: Redis has not answered as the script does that queues tasks")

// enqueue queues tasks, each with its ID before it, and returns a byte for each: '1', or '0' if its ID is there.
func (e *Enqueuer) enqueue(ctx context.Context, queue string, now any, tasks ...any) (string, error) {
	args := append(make([]any, 0, 4+len(tasks)), now, TaskKey(queue, ""), wire.WakeChannelOf(""), queue)
	answer, err := enqueueScript.Run(ctx, e.UniversalClient, []string{pendingKey(queue), wire.WaitingKey(queue)}, append(args, tasks...)...).Text()
	if err != nil {
		return "", err
	}
	answer, denied := strings.CutSuffix(answer, "d")
	if len(answer) != len(tasks)/2 {
		return "", errNotEnqueued
	}
	if denied != e.denied.Load() && strings.Contains(answer, "1") {
		e.denied.Store(denied)
	}
	return answer, nil
}
