// Package cancel takes messages back: one of them, or all of a mailing. It also gives one that waits another time.
//
// A message can be cancelled until it is on the wire. Who is first is decided in Redis, in
// the task's record: a worker writes the wire field before it reads the cancelled one,
// and a cancellation writes the latter only if it does not see the former. So either the
// worker sees the cancellation and drops the message, or the cancellation sees that
// it is too late. When a try is known to have ended without delivery the wire field
// goes. After one whose end is not known it stays, and the message cannot be cancelled
// until a later try has ended, for it may have been delivered.
package cancel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
)

// Canceller takes messages back that a program has handed over.
type Canceller struct {
	Redis  redis.UniversalClient
	Held   time.Duration // how long a worker can still have a task that was taken back
	OnWire time.Duration // how long Mailing waits for what is on the wire: the relay may refuse it for now
	Shards int           // in how many parts the program's queues are
}

// Message takes a message back from a queue, in whichever part of it and for whichever mailer it waits. first is where its ID
// says that it is. The error is mailer.ErrTooLate, mailer.ErrNoTask, or reports that Redis could not be asked.
func (c Canceller) Message(ctx context.Context, first wire.QueueName, id string) error {
	err := c.wherever(ctx, first, id, c.Task)
	if errors.Is(err, errMoving) {
		return tooLate(id)
	}
	return err
}

// wherever does something to a message in the queue where it is, once it is not about to move.
func (c Canceller) wherever(ctx context.Context, first wire.QueueName, id string, do inQueue) error {
	for range movingFor / movingPause {
		err := c.anywhere(ctx, first, id, do)
		if !errors.Is(err, errMoving) {
			return err
		}
		select { // it is elsewhere soon, or a dead letter
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(movingPause):
		}
	}
	return errMoving
}

// inQueue is what is done to a message in a queue. Its error is mailer.ErrNoTask if the message is not there, or as wherever
// returns it.
type inQueue func(ctx context.Context, place wire.QueueName, id string) error

// A message that moves from one queue to another one is between them for a round trip or two. Where its
// worker has died meanwhile, it takes a minute or two.
const (
	movingFor   = time.Second
	movingPause = 20 * time.Millisecond
)

// errMoving reports that a message is about to move, or to become a dead letter.
var errMoving = fmt.Errorf("%w: it is about to move", mailer.ErrTooLate)

// heldSeconds is Held in whole seconds, rounded up.
func (c Canceller) heldSeconds() int { return int(math.Ceil(c.Held.Seconds())) }

func tooLate(id string) error {
	return fmt.Errorf("tasks: %s: %w: it is on the wire, or has ended", id, mailer.ErrTooLate)
}

// anywhere looks for the task where its ID says first, and then wherever else it may be:
// what came of another task is in the part of the queue where that was, a message that was handed over
// when there were fewer parts is where it was then, and a worker puts a message for a named mailer
// into a queue of that mailer's if its producer did not know of the mailer.
func (c Canceller) anywhere(ctx context.Context, first wire.QueueName, id string, do inQueue) error {
	err := do(ctx, first, id)
	if !errors.Is(err, mailer.ErrNoTask) && (!errors.Is(err, mailer.ErrTooLate) || first.Mailer != "") {
		return err
	}
	places, readErr := c.placesOf(ctx, first, id)
	if readErr != nil {
		return readErr
	}
	for _, place := range places {
		switch otherErr := do(ctx, place, id); {
		case otherErr == nil:
			return nil
		case !errors.Is(otherErr, mailer.ErrNoTask):
			err = otherErr
		}
	}
	return err
}

// placesOf are the queues of the same name that have a task with the ID, or the bulk task of
// a message with that ID, but first.
func (c Canceller) placesOf(ctx context.Context, first wire.QueueName, id string) ([]wire.QueueName, error) {
	all, err := find.Queues(ctx, c.Redis)
	if err != nil {
		return nil, err
	}
	whole := wire.QueueName{Mailer: first.Mailer, Queue: first.Queue}
	for shard := range c.Shards + 1 {
		whole.Shard = shard
		all = append(all, whole)
	}
	var places []wire.QueueName
	for _, place := range all {
		place.Bulk = false
		if place.Queue == first.Queue && place != first && (first.Mailer == "" || place.Mailer == "" || place.Mailer == first.Mailer) && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	counts := make([]*redis.IntCmd, 0, 2*len(places))
	task, _, inBulk := wire.SplitID(id)
	_, err = c.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, place := range places {
			counts = append(counts, p.Exists(ctx, asynqbatch.TaskKey(place.String(), id)))
			if place.Bulk = true; inBulk {
				counts = append(counts, p.Exists(ctx, asynqbatch.TaskKey(place.String(), task)))
			}
		}
		return nil
	})
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	each := 1
	if inBulk {
		each = 2
	}
	var found []wire.QueueName
	for i, place := range places {
		if slices.ContainsFunc(counts[i*each:(i+1)*each], func(n *redis.IntCmd) bool { return n.Val() > 0 }) {
			found = append(found, place)
		}
	}
	return found, nil
}

// Task takes a message back from one queue. It looks for a task of the message's own first: one of a bulk task may have become
// that.
func (c Canceller) Task(ctx context.Context, place wire.QueueName, id string) error {
	answer, err := once.TakeBack(ctx, c.Redis, place, id, c.Held)
	if err != nil {
		return err
	}
	if next, replaced := strings.CutPrefix(answer, "replaced:"); replaced {
		return c.Task(ctx, place, next)
	}
	if task, index, ok := wire.SplitID(id); ok && answer == "none" {
		place.Bulk = true
		if answer, err = c.inBulk(ctx, place, task, index); err != nil {
			return err
		}
	}
	switch answer {
	case "none":
		return fmt.Errorf("tasks: %s: %w", id, mailer.ErrNoTask)
	case "decided":
		return errMoving
	case "late":
		return tooLate(id)
	}
	if place.Mailer != "" && handover.IsOnceID(id) {
		from := place
		from.Mailer = "" // it was forwarded, if there is one
		return once.LeaveMark(ctx, c.Redis, from, id, "", handover.NextID(id), c.Held)
	}
	return nil
}

// cancelInBulkScript is cancelScript for a message of the bulk task at KEYS[1]. The task
// stays; the worker leaves the message out. ARGV[5] are the events of it, for where KEYS[3] has some.
var cancelInBulkScript = redis.NewScript(events.Lua + `
local state, wire, sent, cancelled = unpack(redis.call("HMGET", KEYS[1], "state", ARGV[1], ARGV[2], ARGV[3]))
if not state then return "none" end
if wire or sent or state == "completed" or state == "archived" then return "late" end
redis.call("HSET", KEYS[1], ARGV[3], "1")
redis.call("SET", KEYS[2], "1", "EX", ARGV[4])
if not cancelled then eventsFollow(KEYS[3], ARGV[5]) end
return "cancelled"`)

func (c Canceller) inBulk(ctx context.Context, place wire.QueueName, task string, index int) (string, error) {
	records, err := find.Records(ctx, c.Redis, task, place)
	if err != nil || len(records) == 0 {
		return "none", err
	}
	if index >= wire.Count(records[0].Payload) {
		return "none", nil
	}
	id, queue := wire.MessageID(task, index), place.String()
	slot := id[len(task):]
	var told []byte
	n := 0
	for line := range wire.Lines(records[0].Payload) {
		if n == index {
			told = events.OfPayload(nil, id, line, 0, events.Cancelled, "")
		}
		n++
	}
	keys := []string{asynqbatch.TaskKey(queue, task), wire.CancelledKey(queue, id), events.Key(queue)}
	answer, err := cancelInBulkScript.Run(ctx, c.Redis, keys,
		wire.FieldWire+slot, wire.FieldSent+slot, wire.FieldCancelled+slot, c.heldSeconds(), told).Text()
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	if answer == "cancelled" {
		history.Ended(ctx, c.Redis, queue, task, records[0].Type, records[0].Payload, history.Cancelled, "", index)
	}
	return answer, nil
}
