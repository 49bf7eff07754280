package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/mailer"
)

// A dead letter is an archived task of asynq, so asynqmon shows it. But asynq drops
// archived tasks without a word: all but the newest 10,000 of a queue, and those older
// than 90 days, whenever it archives another. So before a worker archives one it
// moves the oldest out of asynq's reach, into a sorted set of ours beside the
// archive. The task's record stays where it is; only the list that names it changes.

const (
	archiveLimit = 2000                // dead letters that stay in asynq's archive
	archiveAge   = 60 * 24 * time.Hour // and how old they may become there
)

func archiveKey(queue string) string { return "asynq:{" + queue + "}:archived" }
func deadKey(queue string) string    { return "mailpouch:{" + queue + "}:dead" }

// rescueScript moves what is too old (ARGV[1]) or too much (ARGV[2]) from KEYS[1] to KEYS[2].
// It moves a thousand at a time, to keep Redis free for others.
const rescueScript = `
local move = function(list)
  for i = 1, #list, 2 do
    redis.call("ZADD", KEYS[2], list[i+1], list[i])
    redis.call("ZREM", KEYS[1], list[i])
  end
end
move(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1], "WITHSCORES", "LIMIT", 0, 1000))
local extra = redis.call("ZCARD", KEYS[1]) - tonumber(ARGV[2])
if extra > 0 then
  move(redis.call("ZRANGE", KEYS[1], 0, math.min(extra, 1000) - 1, "WITHSCORES"))
end
return extra`

// rescue moves the dead letters of a queue that asynq would soon drop. asynq has room
// for 8,000 more than we leave there: those that workers archive at this moment.
func rescue(ctx context.Context, client redis.UniversalClient, queue string) error {
	oldest := time.Now().Add(-archiveAge).Unix()
	keys := []string{archiveKey(queue), deadKey(queue)}
	if err := client.Eval(ctx, rescueScript, keys, oldest, archiveLimit).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// DeadLetter is a message, or those of its recipients, that could not be delivered and
// will not be tried again by itself.
type DeadLetter struct {
	ID     string // of the task
	Queue  string
	Reason string    // the last error
	Tries  int       // that the message had
	At     time.Time // of the last one

	// Message is nil if the task could not be read; Payload is what it holds.
	Message    *mailer.EmailMessage
	Recipients []string // bare addresses: those of the message that it did not reach
	Payload    []byte
}

// DeadLetters is the way to the messages that could not be delivered.
type DeadLetters struct {
	redis     redis.UniversalClient
	client    *asynq.Client
	inspector *asynq.Inspector
}

// NewDeadLetters returns the dead letters in the given Redis, which it does not close.
func NewDeadLetters(client redis.UniversalClient) *DeadLetters {
	return &DeadLetters{
		redis: client, client: asynq.NewClientFromRedisClient(client), inspector: asynq.NewInspectorFromRedisClient(client),
	}
}

// Queues returns the names of all queues, sorted.
func (d *DeadLetters) Queues() ([]string, error) {
	queues, err := d.inspector.Queues()
	if err != nil {
		return nil, unavailable(err)
	}
	slices.Sort(queues)
	return queues, nil
}

// IDs returns the dead letters of a queue by the IDs of their tasks, oldest first.
func (d *DeadLetters) IDs(ctx context.Context, queue string) ([]string, error) {
	var ids []string
	for _, key := range []string{deadKey(queue), archiveKey(queue)} {
		list, err := d.redis.ZRange(ctx, key, 0, -1).Result()
		if err != nil {
			return nil, unavailable(err)
		}
		ids = append(ids, list...)
	}
	return ids, nil
}

// ErrNotDead says that there is no dead letter with an ID.
var ErrNotDead = errors.New("no such dead letter")

// Get returns a dead letter. The error is ErrNotDead if it was replayed or deleted.
func (d *DeadLetters) Get(queue, id string) (*DeadLetter, error) {
	info, err := d.inspector.GetTaskInfo(queue, id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil, fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	case err != nil:
		return nil, unavailable(err)
	case info.State != asynq.TaskStateArchived:
		return nil, fmt.Errorf("tasks: %s is %v: %w", id, info.State, ErrNotDead)
	}
	l := &DeadLetter{
		ID: id, Queue: queue, Reason: info.LastErr, Tries: info.Retried + 1, At: info.LastFailedAt, Payload: info.Payload,
	}
	if p, err := decodePayload(info.Payload); err == nil {
		l.Message, l.Recipients = p.Message, p.Recipients
		if envelope, err := p.Message.Envelope(); err == nil && len(l.Recipients) == 0 {
			l.Recipients = envelope.To
		}
	}
	return l, nil
}

// Replay queues a dead letter anew, as if it had been handed over now, and removes it.
// The message is the same, with the same Message-ID; recipients that were reached
// get no second copy. It returns the new task's ID.
func (d *DeadLetters) Replay(ctx context.Context, queue, id string) (string, error) {
	info, err := d.inspector.GetTaskInfo(queue, id)
	if err != nil || info.State != asynq.TaskStateArchived {
		_, err := d.Get(queue, id)
		return "", err
	}
	p, err := decodePayload(info.Payload)
	if err != nil {
		return "", err
	}
	p.DueAt, p.Deadline, p.Refused = time.Now().UTC().Truncate(time.Millisecond), nil, ""
	opts := []asynq.Option{asynq.Queue(queue), asynq.MaxRetry(info.MaxRetry), asynq.Timeout(info.Timeout)}
	if info.Retention > 0 {
		opts = append(opts, asynq.Retention(info.Retention))
	}
	// Two who replay the same letter at the same time enqueue it once.
	again := id + "-again"
	if err := enqueue(ctx, d.client, p, again, opts...); err != nil {
		return "", err
	}
	return again, d.Delete(ctx, queue, id)
}

// deleteScript removes a dead letter from both lists, and its record.
const deleteScript = `
local n = redis.call("ZREM", KEYS[1], ARGV[1]) + redis.call("ZREM", KEYS[2], ARGV[1])
if n > 0 then redis.call("DEL", KEYS[3]) end
return n`

// Delete removes a dead letter for good.
func (d *DeadLetters) Delete(ctx context.Context, queue, id string) error {
	keys := []string{archiveKey(queue), deadKey(queue), taskKey(queue, id)}
	n, err := d.redis.Eval(ctx, deleteScript, keys, id).Int()
	if err != nil {
		return unavailable(err)
	}
	if n == 0 {
		return fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	}
	return nil
}
