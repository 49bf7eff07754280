// Package once hands a message over once, however often a program hands it over, and takes a task back so that its key is free.
//
// A message with an idempotency key, or that is to be unique, is queued
// once: its task's ID derives from the key, and asynq takes no second task with an ID
// that it has. The task stays for a while after it was sent (asynq's retention), and
// so does the ID. One command of Redis decides, so it does not matter how many
// programs hand over at the same time, or which of them dies in between. The task is in the
// undivided queue, whatever parts there are: a place that followed from their number would
// be another one for programs that know of more of them.
//
// What a kept key costs is the task's record in Redis, 3 kB for a message of 2 kB,
// for the time of the window.
package once

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Task is the task of a message that is handed over once.
type Task struct {
	Redis  redis.UniversalClient
	Place  wire.QueueName   // where it goes
	Others []wire.QueueName // where an earlier one may be
	ID     string
	Using  string        // the mailer that the message names
	Key    string        // the idempotency key, if there is one
	Digest string        // of the message
	Held   time.Duration // how long a worker can have it
	Kept   time.Duration // how long from now its mark is needed, if it is handed over again
}

// HandOver calls put, which is to enqueue the task, unless an earlier hand-over of the same
// message has. It returns the ID of the task. look is to look for that one first.
func (t Task) HandOver(ctx context.Context, look bool, put func(id string) error) (id string, err error) {
	found, first, err := t.elsewhere(ctx)
	if err != nil || found != nil {
		return t.judge(ctx, found, err)
	}
	id, look = first, look || first != t.ID
	for range 5 { // an earlier task may end just when it is looked at
		if look {
			found, free, err := t.resolve(ctx, t.Place, t.ID)
			if err != nil || found != nil {
				return t.judge(ctx, found, err)
			}
			if id = free; free == t.ID {
				id = first
			}
		}
		if err := put(id); !errors.Is(err, asynq.ErrTaskIDConflict) {
			return id, err
		}
		look = true
	}
	err = errors.New("the task of this key comes and goes: try again")
	return "", &mailer.SendError{Class: mailer.Temporary, Step: handover.StepQueue, Err: err}
}

// judge decides what an earlier task means for a hand-over.
func (t Task) judge(ctx context.Context, found *find.Record, err error) (id string, _ error) {
	if err != nil {
		return "", redisconn.NotQueued(ctx, err)
	}
	if s, bad := wire.DecodeMeta(found.Payload); bad != nil || s.Digest != t.Digest {
		err = &mailer.IdempotencyError{Key: t.Key, ID: found.ID}
	} else if found.State == "archived" {
		err = &mailer.DeadLetterError{ID: found.ID, Queue: found.Place.String(), Reason: found.Reason()}
	}
	if err != nil {
		return found.ID, &mailer.SendError{Class: mailer.Permanent, Step: handover.StepQueue, Err: err}
	}
	return found.ID, nil
}

// elsewhere returns the earlier task if it is not in its place: it was forwarded, or a program has put it
// there that knows the mailers and this one does not, or one of the time when a key's place was a part of the queue.
// If there is none, free is the ID that the next task has.
func (t Task) elsewhere(ctx context.Context) (found *find.Record, free string, err error) {
	if len(t.Others) == 0 {
		return nil, t.ID, nil
	}
	records, err := find.Records(ctx, t.Redis, t.ID, t.Others...)
	if err != nil {
		return nil, "", err
	}
	last := t.ID
	for _, r := range records {
		found, free, err := t.resolve(ctx, r.Place, t.ID)
		if err != nil || found != nil {
			return found, "", err
		}
		if free != t.ID { // cancelled there
			last = free
		}
	}
	return nil, last, nil
}

// resolve returns the task with an ID in a place, or the one that took its place there or, if it was
// forwarded, where that went. If there is none, free is the ID that the next task has.
func (t Task) resolve(ctx context.Context, place wire.QueueName, id string) (found *find.Record, free string, err error) {
	records, err := find.Records(ctx, t.Redis, id, place)
	if err != nil || len(records) == 0 {
		return nil, id, err
	}
	r := records[0]
	switch {
	case r.Next != "":
		found, free, err = t.resolve(ctx, place, r.Next)
		if found != nil || err != nil {
			return found, free, err
		}
		if r.Cancelled || free != r.Next { // a worker may have it yet, or what a replay has made of it
			return nil, free, t.keep(ctx, place, id)
		}
		return nil, id, setFree(ctx, t.Redis, place, id, r.Next)
	case r.Cancelled: // a program of an older version has told its worker, and that is all
		if _, err := TakeBack(ctx, t.Redis, place, id, t.Held); err != nil {
			return nil, "", err
		}
		return nil, id, nil // if it is not free, that is seen when the task is put there
	}
	if t.Using == "" || place.Mailer != "" || r.State != "completed" && !r.Decided {
		return &r, "", nil
	}
	return t.resolveForwarded(ctx, r)
}

// resolveForwarded is resolve for a task in the queue of those who do not know the mailers: it has gone, or is
// about to go, to the queue of its mailer.
func (t Task) resolveForwarded(ctx context.Context, r find.Record) (found *find.Record, free string, err error) {
	to := r.Place
	to.Mailer = t.Using
	found, free, err = t.resolve(ctx, to, r.ID)
	if found != nil || err != nil {
		return found, free, err
	}
	if r.State != "completed" { // it is on its way, unless it was cancelled where it has arrived
		cancelled, err := WasTakenBack(ctx, t.Redis, to, r.Base())
		if err != nil || !cancelled {
			return &r, "", err
		}
	}
	if free != r.ID { // cancelled there
		return nil, free, LeaveMark(ctx, t.Redis, r.Place, r.ID, "", free, t.Kept)
	}
	return nil, r.ID, setFree(ctx, t.Redis, r.Place, r.ID, "")
}

// keep makes a mark last for as long as the task that is about to take its place.
func (t Task) keep(ctx context.Context, place wire.QueueName, id string) error {
	if err := t.Redis.Expire(ctx, asynqbatch.TaskKey(place.String(), id), t.Kept).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

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
// message was handed over once. ARGV[5] are the events of it, for where KEYS[9] has some. KEYS[8] tells a worker that has a task without a record, for it lost its lease.
var takeBackScript = redis.NewScript(asynqbatch.TakeOutLua + events.Lua + `
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
if not cancelled then eventsFollow(KEYS[9], ARGV[5]) end
return "cancelled"`)

// TakeBack runs takeBackScript for the task with an ID in one of asynq's queues. A worker can have it
// for so long.
func TakeBack(ctx context.Context, client redis.UniversalClient, place wire.QueueName, id string, held time.Duration) (answer string, err error) {
	queue, base, next := place.String(), id, ""
	records, err := find.Records(ctx, client, id, place)
	if err != nil {
		return "", err
	}
	if handover.IsOnceID(id) {
		if len(records) > 0 {
			base = records[0].Base()
		}
		next = handover.NextID(id)
	}
	var told []byte
	if len(records) > 0 {
		told = events.OfPayload(nil, id, records[0].Payload, records[0].Retried, events.Cancelled, "")
	}
	keys := append(asynqbatch.ListKeys(queue, id), wire.CancelledKey(queue, base), events.Key(queue))
	answer, err = takeBackScript.Run(ctx, client, keys, id, rand.Text(), seconds(held), next, told).Text()
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	if answer == "cancelled" && len(records) > 0 {
		history.Ended(ctx, client, queue, id, records[0].Type, records[0].Payload, history.Cancelled, "")
	}
	return answer, nil
}

// WasTakenBack reports whether the task was taken back from a queue, whose IDs begin with that base.
func WasTakenBack(ctx context.Context, client redis.UniversalClient, place wire.QueueName, base string) (bool, error) {
	n, err := client.Exists(ctx, wire.CancelledKey(place.String(), base)).Result()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	return n > 0, nil
}

// ReplayedFor is how long a dead letter with a key that is replayed leaves a mark in its
// place, so that the key stays taken: longer than the new task waits. The new one cannot
// have the ID itself: it is another task for whoever was told of the first one.
const ReplayedFor = 30 * 24 * time.Hour

// HeldAtMost is longer than any worker has a task in hand.
const HeldAtMost = 24 * time.Hour

// seconds is a time in whole seconds, rounded up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

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
	return LeaveMark(ctx, client, place, id, next, "", 0)
}

// LeaveMark leaves a mark in the place of a task that was forwarded, and cancelled where it had
// gone to: the key's next task goes under the ID then, here as there.
func LeaveMark(ctx context.Context, client redis.UniversalClient, place wire.QueueName, id, next, then string, held time.Duration) error {
	if err := setFreeScript.Run(ctx, client, asynqbatch.ListKeys(place.String(), id), id, next, then, seconds(held)).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}
