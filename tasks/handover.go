package tasks

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

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

// IdempotencyError says that an idempotency key was used for another message before.
// Nothing was queued.
type IdempotencyError struct {
	Key string
	ID  string // of the task that has the key
}

func (e *IdempotencyError) Error() string {
	return fmt.Sprintf("idempotency key %q was used for another message (task %s)", e.Key, e.ID)
}

// DeadLetterError says that the same message was handed over before and could not be
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

// maxKey is the longest idempotency key, in octets.
const maxKey = 255

func (o Options) validateKey() error {
	key := o.IdempotencyKey
	switch {
	case key != "" && o.Unique != 0:
		return errors.New("tasks: idempotency_key and unique exclude each other")
	case len(key) > maxKey:
		return fmt.Errorf("tasks: idempotency_key: %d octets, at most %d are allowed", len(key), maxKey)
	case !utf8.ValidString(key):
		return errors.New("tasks: idempotency_key: not valid UTF-8")
	case strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("tasks: idempotency_key: has a control character")
	case key != "" && strings.TrimSpace(key) == "":
		return errors.New("tasks: idempotency_key: is blank")
	case o.Unique != 0 && o.Unique < time.Second:
		return fmt.Errorf("tasks: unique %v: a second is the shortest", o.Unique)
	}
	return nil
}

// handedOnce says whether the message must not be handed over twice.
func (o Options) handedOnce() bool { return o.IdempotencyKey != "" || o.Unique != 0 }

// digest is what makes two hand-overs the same: all that the recipients get, and
// at_most_once. When the message is sent does not count. Message-ID and Date do not
// either, for most often they are made anew at each try of a hand-over.
func digest(m *mailer.EmailMessage, o Options) (string, error) {
	c := *m
	c.MessageID, c.Date = "", time.Time{}
	data, err := c.MarshalJSON()
	if err != nil {
		return "", err
	}
	return shortHash(fmt.Sprintf("at_most_once=%v\n", o.AtMostOnce), string(data)), nil
}

// shortHash is a SHA-256 of the parts, cut to 120 bits.
func shortHash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		_, _ = h.Write([]byte(p))
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:15]))
}

// onceID is the ID of the task for a key, or for a digest. Each mailer has keys of its
// own, as it has queues of its own.
func (o Options) onceID(digest string) string {
	if o.IdempotencyKey == "" {
		return "unique-" + shortHash(o.Using, digest)
	}
	return "key-" + readable(o.IdempotencyKey) + "-" + shortHash(o.Using, o.IdempotencyKey)
}

// readable is as much of a key as a person needs to find its task.
func readable(key string) string {
	var b strings.Builder
	for _, r := range key {
		if b.Len() == 32 {
			break
		}
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	return b.String()
}

// kept is how long a task stays in Redis after its end.
func (q *Queue) kept(o Options) time.Duration {
	kept := max(o.Retention, o.Unique)
	if o.IdempotencyKey != "" {
		kept = max(kept, q.cfg.IdempotencyWindow)
	}
	return kept
}

// stepQueue is where a hand-over fails that Redis would have taken.
const stepQueue mailer.Step = "queue"

// handOver enqueues a task and returns its ID. With a key the ID derives from that, and
// may be the one of the task that an earlier hand-over of the same message made.
func (q *Queue) handOver(ctx context.Context, p *wire.Payload) mailer.Result {
	var id string
	var err error
	if q.cfg.Options.handedOnce() {
		id, err = q.handOverOnce(ctx, p)
	} else {
		id = rand.Text()
		name := q.queueOf(id)
		err = q.traced(ctx, name, id, func(ctx context.Context, headers map[string]string) error {
			p.Headers = headers
			return enqueue(ctx, q.client, p, id, q.taskOptions(name.String(), p.DueAt)...)
		})
	}
	if err != nil {
		return mailer.Result{Err: err}
	}
	return mailer.Result{Reply: id}
}

func (q *Queue) handOverOnce(ctx context.Context, p *wire.Payload) (string, error) {
	o := q.cfg.Options
	var err error
	if p.Digest, err = digest(p.Message, o); err != nil {
		return "", &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
	}
	id := o.onceID(p.Digest)
	queue := q.queueOf(id).String()
	opts := q.taskOptions(queue, p.DueAt)
	look := len(p.Blobs) > 0 // big attachments need not travel twice
	for range 5 {            // an earlier task may end just when it is looked at
		if look {
			found, err := q.earlier(ctx, queue, id)
			if err != nil {
				return "", err
			}
			if found != nil {
				return found.ID, q.judge(ctx, found, p.Digest, o)
			}
		}
		err := q.traced(ctx, wire.ParseQueueName(queue), id, func(ctx context.Context, headers map[string]string) error {
			p.Headers = headers
			return put(ctx, q.client, p, id, opts...)
		})
		if !errors.Is(err, asynq.ErrTaskIDConflict) {
			return id, err
		}
		look = true
	}
	err = errors.New("the task of this key comes and goes: try again")
	return "", &mailer.SendError{Class: mailer.Temporary, Step: stepQueue, Err: err}
}

// judge says what an earlier task with the same ID means for a hand-over.
func (q *Queue) judge(ctx context.Context, found *asynq.TaskInfo, digest string, o Options) error {
	var err error
	if s, bad := wire.DecodeMeta(found.Payload); bad != nil || s.Digest != digest {
		err = &IdempotencyError{Key: o.IdempotencyKey, ID: found.ID}
	} else if found.State == asynq.TaskStateArchived {
		reason, failed := wholeReason(ctx, q.redis, found)
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
func (q *Queue) earlier(ctx context.Context, queue, id string) (*asynq.TaskInfo, error) {
	next, err := q.redis.HGet(ctx, taskKey(queue, id), wire.FieldReplayed).Result()
	switch {
	case err == nil:
		found, err := q.earlier(ctx, queue, next)
		if found == nil && err == nil {
			err = q.setFree(ctx, queue, id, next)
		}
		return found, err
	case !errors.Is(err, redis.Nil):
		return nil, unavailable(err)
	}
	info, err := asynq.NewInspectorFromRedisClient(q.redis).GetTaskInfo(queue, id)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return info, nil
}

// replayedFor is how long a dead letter with a key that is replayed leaves a mark in its
// place, so that the key stays taken: longer than the new task waits. The new one
// cannot have the ID itself, for it has to be in Redis before the dead letter goes.
const replayedFor = 30 * 24 * time.Hour

// setFreeScript removes a mark that still says the same.
const setFreeScript = `
if redis.call("HGET", KEYS[1], ARGV[1]) == ARGV[2] then redis.call("DEL", KEYS[1]) end
return 0`

func (q *Queue) setFree(ctx context.Context, queue, id, next string) error {
	if err := q.redis.Eval(ctx, setFreeScript, []string{taskKey(queue, id)}, wire.FieldReplayed, next).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}
