package tasks

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// A message with an idempotency key, or that is to be unique, is queued
// once: its task's ID derives from the key, and asynq takes no second task with an ID
// that it has. The task stays for a while after it was sent (asynq's retention), and
// so does the ID. One command of Redis decides, so it does not matter how many
// programs hand over at the same time, or which of them dies in between.
//
// What a kept key costs is the task's record in Redis, 3 kB for a message of 2 kB,
// for the time of the window.

// IdempotencyError reports that an idempotency key was used for another message before.
// Nothing was queued.
type IdempotencyError struct {
	Key string
	ID  string // of the task that has the key
}

func (e *IdempotencyError) Error() string {
	return fmt.Sprintf("idempotency key %q was used for another message (task %s)", e.Key, e.ID)
}

// DeadLetterError reports that the same message was handed over before and could not be
// delivered. Nothing was queued: a person replays the dead letter (DeadLetters.Replay)
// or deletes it, which sets the key free.
type DeadLetterError struct {
	ID     string // of the dead letter
	Queue  string
	Reason string // why it could not be delivered
}

func (e *DeadLetterError) Error() string {
	return fmt.Sprintf("the same message is a dead letter (%s): send it again with: enqueue dead replay %s", e.Reason, e.ID)
}

// stepQueue is where a hand-over fails that Redis would have taken.
const stepQueue mailer.Step = "queue"

// onceTask is the task of a message that is handed over once.
type onceTask struct {
	redis  redis.UniversalClient
	queue  string
	id     string
	key    string // the idempotency key, if there is one
	digest string // of the message
}

// handOver calls put, which is to enqueue the task, unless an earlier hand-over of the same
// message has. It returns the ID of the task. look is to look for that one first.
func (t onceTask) handOver(ctx context.Context, look bool, put func() error) (id string, err error) {
	for range 5 { // an earlier task may end just when it is looked at
		if look {
			found, err := t.earlier(ctx, t.id)
			if err != nil {
				return "", err
			}
			if found != nil {
				return found.ID, t.judge(ctx, found)
			}
		}
		if err := put(); !errors.Is(err, asynq.ErrTaskIDConflict) {
			return t.id, err
		}
		look = true
	}
	err = errors.New("the task of this key comes and goes: try again")
	return "", &mailer.SendError{Class: mailer.Temporary, Step: stepQueue, Err: err}
}

// judge decides what an earlier task with the same ID means for a hand-over.
func (t onceTask) judge(ctx context.Context, found *asynq.TaskInfo) error {
	var err error
	if s, bad := wire.DecodeMeta(found.Payload); bad != nil || s.Digest != t.digest {
		err = &IdempotencyError{Key: t.key, ID: found.ID}
	} else if found.State == asynq.TaskStateArchived {
		reason, failed := wholeReason(ctx, t.redis, found)
		if failed != nil {
			return failed
		}
		err = &DeadLetterError{ID: found.ID, Queue: found.Queue, Reason: reason}
	}
	if err != nil {
		return &mailer.SendError{Class: mailer.Permanent, Step: stepQueue, Err: err}
	}
	return nil
}

// earlier returns the task with an ID, or the one that took its place when it was
// replayed. It is nil if that is gone, and then the ID is free.
func (t onceTask) earlier(ctx context.Context, id string) (*asynq.TaskInfo, error) {
	next, err := t.redis.HGet(ctx, asynqbatch.TaskKey(t.queue, id), wire.FieldReplayed).Result()
	switch {
	case err == nil:
		found, err := t.earlier(ctx, next)
		if found == nil && err == nil {
			err = t.setFree(ctx, id, next)
		}
		return found, err
	case !errors.Is(err, redis.Nil):
		return nil, redisconn.Unavailable(err)
	}
	inspector := asynq.NewInspectorFromRedisClient(t.redis)
	look := func() (*asynq.TaskInfo, error) { return inspector.GetTaskInfo(t.queue, id) }
	info, err := redisconn.Within(ctx, look)
	if errors.Is(err, asynq.ErrQueueNotFound) && t.redis.SAdd(ctx, wire.QueuesKey, t.queue).Err() == nil {
		info, err = redisconn.Within(ctx, look) // asynq's set of names may have been lost
	}
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	return info, nil
}

// setFreeScript removes a mark that still says the same.
const setFreeScript = `
if redis.call("HGET", KEYS[1], ARGV[1]) == ARGV[2] then redis.call("DEL", KEYS[1]) end
return 0`

func (t onceTask) setFree(ctx context.Context, id, next string) error {
	if err := t.redis.Eval(ctx, setFreeScript, []string{asynqbatch.TaskKey(t.queue, id)}, wire.FieldReplayed, next).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}
