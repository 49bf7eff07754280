package tasks

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A task whose message was handed over once, with a key or as unique, is taken out of its list
// when it is cancelled, also out of the hands of a worker, and leaves a mark in the place
// of its record: that it was cancelled, for the worker, and under which ID the key's next task
// goes. It has another one, so whatever that worker still does in the name of the
// first task does nothing to the second. The mark of a replayed dead letter is of the same kind.
//
//	key-order-7-h...      scheduled, cancelled    -> mark: next is key-order-7-h...-2
//	key-order-7-h...-2    waiting
//
// Any other active task that is cancelled is left to its worker, which drops it.

// takeBackScript takes back the task ARGV[1] and returns what became of it:
//
//	cancelled    it has not been sent and will not be
//	replaced:ID  it was replayed, as that task
//	decided      it is about to move, or to become a dead letter
//	late         it is on the wire, or has ended
//	none         there is no such task, or it was cancelled before
//
// ARGV[2] is this very call, so that it can be repeated when its reply was lost, ARGV[3] for how many
// seconds a worker can still have the task, and ARGV[4] the ID of the key's next task, if the
// message was handed over once. KEYS[8] tells a worker that has a task without a record, for it lost its lease.
var takeBackScript = redis.NewScript(asynqbatch.TakeOutLua + `
local state, wire, sent, next, cancelled = unpack(redis.call("HMGET", KEYS[1],
  "state", "` + wire.FieldWire + `", "` + wire.FieldSent + `", "` + wire.FieldReplayed + `", "` + wire.FieldCancelled + `"))
if next then
  if cancelled == ARGV[2] then return "cancelled" end
  if cancelled then return "none" end
  return "replaced:" .. next
end
if not state then
  if redis.call("GET", KEYS[8]) == ARGV[2] then return "cancelled" end
  return "none"
end
if sent or state == "completed" or state == "archived" then return "late" end
if wire == "decided" then return "decided" end
if wire then return "late" end
if ARGV[4] ~= "" then
  takeOut(ARGV[1], state)
  redis.call("DEL", KEYS[1])
  redis.call("HSET", KEYS[1], "state", "completed", "` + wire.FieldReplayed + `", ARGV[4], "` + wire.FieldCancelled + `", ARGV[2])
  redis.call("EXPIRE", KEYS[1], ARGV[3])
elseif state == "active" then
  redis.call("HSET", KEYS[1], "` + wire.FieldCancelled + `", ARGV[2])
else
  takeOut(ARGV[1], state)
  redis.call("DEL", KEYS[1])
end
redis.call("SET", KEYS[8], ARGV[2], "EX", ARGV[3])
return "cancelled"`)

// takeBack runs takeBackScript for the task with an ID in one of asynq's queues. A worker can have it
// for so long.
func takeBack(ctx context.Context, client redis.UniversalClient, place wire.QueueName, id string, held time.Duration) (answer string, err error) {
	queue, base, next := place.String(), id, ""
	if isOnceID(id) {
		records, err := readRecords(ctx, client, id, place)
		if err != nil {
			return "", err
		}
		if len(records) > 0 {
			base = records[0].base()
		}
		next = nextID(id)
	}
	keys := append(asynqbatch.ListKeys(queue, id), wire.CancelledKey(queue, base))
	answer, err = takeBackScript.Run(ctx, client, keys, id, rand.Text(), seconds(held), next).Text()
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	return answer, nil
}

// wasTakenBack reports whether the task was taken back from a queue, whose IDs begin with that base.
func wasTakenBack(ctx context.Context, client redis.UniversalClient, place wire.QueueName, base string) (bool, error) {
	n, err := client.Exists(ctx, wire.CancelledKey(place.String(), base)).Result()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	return n > 0, nil
}

// replayedFor is how long a dead letter with a key that is replayed leaves a mark in its
// place, so that the key stays taken: longer than the new task waits. The new one cannot
// have the ID itself: it is another task for whoever was told of the first one.
const replayedFor = 30 * 24 * time.Hour

// heldAtMost is longer than any worker has a task in hand.
const heldAtMost = 24 * time.Hour

// seconds is a time in whole seconds, rounded up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// nextID is the ID under which the message of a key goes that is handed over again while the task with
// this ID may still be a worker's.
func nextID(id string) string {
	const digits = 6 // what is longer is no number of ours
	if i := strings.LastIndexByte(id, '-'); i >= 0 && len(id)-i-1 <= digits {
		if n, err := strconv.Atoi(id[i+1:]); err == nil && n > 1 {
			return id[:i+1] + strconv.Itoa(n+1)
		}
	}
	return id + "-2"
}

// setFreeScript removes what is left in the place of the task ARGV[1]: a mark that names ARGV[2]
// still or, if that is empty, a task that has completed. With ARGV[3] a mark takes its place that
// says so of a task that was cancelled where it had gone to, for ARGV[4] seconds.
var setFreeScript = redis.NewScript(asynqbatch.TakeOutLua + `
local state, wire, next = unpack(redis.call("HMGET", KEYS[1], "state", "` + wire.FieldWire + `", "` + wire.FieldReplayed + `"))
if not state or (next or "") ~= ARGV[2] then return 0 end
if ARGV[2] == "" then
  if state == "archived" or state ~= "completed" and (ARGV[3] == "" or wire ~= "decided") then return 0 end
  takeOut(ARGV[1], state)
end
redis.call("DEL", KEYS[1])
if ARGV[3] ~= "" then
  redis.call("HSET", KEYS[1], "state", "completed", "` + wire.FieldReplayed + `", ARGV[3], "` + wire.FieldCancelled + `", "1")
  redis.call("EXPIRE", KEYS[1], ARGV[4])
end
return 1`)

// setFree removes a mark that names next, or a completed task if next is empty.
func setFree(ctx context.Context, client redis.UniversalClient, place wire.QueueName, id, next string) error {
	return leaveMark(ctx, client, place, id, next, "", 0)
}

// leaveMark leaves a mark in the place of a task that was forwarded, and cancelled where it had
// gone to: the key's next task goes under the ID then, here as there.
func leaveMark(ctx context.Context, client redis.UniversalClient, place wire.QueueName, id, next, then string, held time.Duration) error {
	if err := setFreeScript.Run(ctx, client, asynqbatch.ListKeys(place.String(), id), id, next, then, seconds(held)).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}
