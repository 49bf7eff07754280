package letters

import (
	"context"
	"crypto/sha1" //nolint:gosec // as Redis's scripts have it
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
)

// A dead letter is replayed, or deleted, by the one whose script takes it out of its list. A
// replay puts the new task into the queue in the same script. So who replays a letter at the
// same time as somebody else finds none, even if the new task has been sent by then.

// Replay queues a dead letter anew, as if it had been handed over now, and removes it.
// The message is the same, with the same Message-ID; recipients that were reached
// get no second copy. It returns the new task's ID. If several replay a letter at the
// same time one of them does, and the others get ErrNotDead.
func (d *DeadLetters) Replay(ctx context.Context, queue, id string) (string, error) {
	info, err := d.inspector.GetTaskInfo(queue, id)
	if err != nil || info.State != asynq.TaskStateArchived {
		_, err := d.Summary(queue, id)
		return "", err
	}
	if info.Type == wire.TaskTypeBulk {
		return id, d.replayBulk(ctx, info)
	}
	old, err := wire.Decode(info.Payload, info.Headers)
	if err != nil {
		return "", err
	}
	again := old.BaseID(id) + "-again"
	key, nextKey := asynqbatch.TaskKey(queue, id), asynqbatch.TaskKey(queue, again)
	p, err := d.client.Contents.Hold(ctx, handedOverAgain(old), nextKey)
	if err != nil {
		return "", err
	}
	message, err := d.encodeAgain(ctx, p, info, again)
	if err != nil {
		return "", err
	}
	keyed := p.Digest != ""
	keys := []string{archiveKey(queue), wire.DeadKey(queue), key, nextKey, pendingKey(queue), events.Key(queue)}
	queued := events.Append(nil, events.Queued, events.Of(p, again, 0), "", events.Recipients(p)...)
	done, err := replayScript.Run(ctx, d.redis, keys, id, again, message, time.Now().UnixNano(), keyed, int(once.ReplayedFor/time.Second), queued).Text()
	switch {
	case err != nil:
		return "", redisconn.Unavailable(err)
	case done == "none":
		d.client.Contents.Drop(ctx, nextKey, p)
		return "", fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	case done == "before":
		d.client.Contents.Drop(ctx, nextKey, p)
	}
	d.client.Contents.Drop(ctx, key, old)
	history.Ended(ctx, d.redis, queue, id, info.Type, info.Payload, history.Replayed, again)
	return again, nil
}

// handedOverAgain is the payload of a dead letter as if its message were handed over now.
func handedOverAgain(old *wire.Payload) *wire.Payload {
	p := *old
	p.Headers = maps.Clone(p.Headers)
	delete(p.Headers, wire.HeaderDied)
	p.DueAt, p.Deadline, p.Refused, p.Spent = wire.DueOnce(time.Now()), nil, "", 0
	return &p
}

// encodeAgain is a task of that payload, with the options that the dead letter has.
func (d *DeadLetters) encodeAgain(ctx context.Context, p *wire.Payload, letter *asynq.TaskInfo, id string) ([]byte, error) {
	data, err := d.client.Encode(ctx, p)
	if err != nil {
		return nil, err
	}
	return asynqbatch.Encode(asynq.NewTaskWithHeaders(wire.TaskType, data, p.Headers), asynq.TaskID(id), asynq.Queue(letter.Queue),
		asynq.MaxRetry(letter.MaxRetry), asynq.Timeout(letter.Timeout), asynq.Retention(letter.Retention))
}

// replayScript takes the dead letter ARGV[1], with the record KEYS[3], out of the lists
// KEYS[1] and KEYS[2], and puts the task ARGV[3] with the ID ARGV[2] into the list KEYS[5] and
// its record KEYS[4]. With ARGV[5] it leaves a mark in the place of the letter, for ARGV[6] seconds. ARGV[7] are the events of the task, for where KEYS[6] has some.
// It returns "done"; "none" if there is no such letter; "before" if that task was there, of a
// replay that was cut off. If the reply was lost and it is asked again, the task is the same.
var replayScript = redis.NewScript(events.Lua + `
if redis.call("ZREM", KEYS[1], ARGV[1]) + redis.call("ZREM", KEYS[2], ARGV[1]) == 0 then
  if redis.call("HGET", KEYS[4], "msg") == ARGV[3] then return "done" end
  return "none"
end
redis.call("DEL", KEYS[3])
if ARGV[5] == "1" then
  redis.call("HSET", KEYS[3], "state", "completed", "` + wire.FieldReplayed + `", ARGV[2])
  redis.call("EXPIRE", KEYS[3], ARGV[6])
end
if redis.call("EXISTS", KEYS[4]) == 1 then return "before" end
redis.call("HSET", KEYS[4], "msg", ARGV[3], "state", "pending", "pending_since", ARGV[4])
redis.call("LPUSH", KEYS[5], ARGV[2])
eventsFollow(KEYS[6], ARGV[7])
return "done"`)

// replayBulkScript puts the dead letter ARGV[1] back into the list KEYS[4], where it waits since ARGV[2]. Its record is
// KEYS[3], whose message with the SHA-1 ARGV[3] becomes ARGV[4], and its events are ARGV[5], for where KEYS[5] has some. It returns how many
// it has found.
var replayBulkScript = redis.NewScript(events.Lua + `
local msg = redis.call("HGET", KEYS[3], "msg")
if not msg or redis.sha1hex(msg) ~= ARGV[3] then return 0 end
local n = redis.call("ZREM", KEYS[1], ARGV[1]) + redis.call("ZREM", KEYS[2], ARGV[1])
if n > 0 then
  redis.call("HSET", KEYS[3], "state", "pending", "pending_since", ARGV[2], "msg", ARGV[4])
  redis.call("LPUSH", KEYS[4], ARGV[1])
  eventsFollow(KEYS[5], eventsLeft(KEYS[3], ARGV[5]))
end
return n`)

// replayBulk is Replay for a bulk task. It stays the same task: what of it was sent, cancelled or moved on stays so.
func (d *DeadLetters) replayBulk(ctx context.Context, info *asynq.TaskInfo) error {
	now, key := time.Now(), asynqbatch.TaskKey(info.Queue, info.ID)
	message, err := d.redis.HGet(ctx, key, fieldMessage).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return redisconn.Unavailable(err)
	}
	old, _ := asynqbatch.ReadMessage(message) // what cannot be read is empty
	data, err := d.dueAgain(ctx, old.Payload, wire.Due(now))
	if err != nil {
		return err
	}
	was := sha1.Sum([]byte(message)) //nolint:gosec // Redis has no better one, and nobody gains by a collision
	keys := []string{archiveKey(info.Queue), wire.DeadKey(info.Queue), key, pendingKey(info.Queue), events.Key(info.Queue)}
	queued := events.OfTask(wire.TaskTypeBulk, info.ID, data, 0, events.Queued, "")
	n, err := replayBulkScript.Run(ctx, d.redis, keys, info.ID, now.UnixNano(), hex.EncodeToString(was[:]), asynqbatch.WithPayload(message, data), queued).Int()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	if n == 0 {
		return fmt.Errorf("tasks: %s: %w", info.ID, ErrNotDead)
	}
	return nil
}

// dueAgain is the payload of a bulk task whose messages are due then. One that cannot be read stays as it is: a worker makes a dead
// letter of it.
func (d *DeadLetters) dueAgain(ctx context.Context, payload []byte, due time.Time) ([]byte, error) {
	var lines []byte
	var read []*wire.Payload
	for line := range wire.Lines(payload) {
		p, err := wire.Decode(line, nil)
		if err != nil {
			lines = append(lines, line...)
			continue
		}
		p.DueAt, p.Deadline = due, nil
		if lines, err = p.Append(lines); err != nil {
			return nil, err
		}
		lines, read = append(lines, '\n'), append(read, p)
	}
	if len(read) < wire.Count(payload) {
		return lines, nil
	}
	return d.client.EncodeMany(ctx, read)
}

// deleteScript removes the dead letter ARGV[1] from both lists, and its record.
var deleteScript = redis.NewScript(`
local n = redis.call("ZREM", KEYS[1], ARGV[1]) + redis.call("ZREM", KEYS[2], ARGV[1])
if n > 0 then redis.call("DEL", KEYS[3]) end
return n`)

// Delete removes a dead letter for good.
func (d *DeadLetters) Delete(ctx context.Context, queue, id string) error {
	key := asynqbatch.TaskKey(queue, id)
	l, err := d.Summary(queue, id)
	if err != nil {
		return err
	}
	n, err := deleteScript.Run(ctx, d.redis, []string{archiveKey(queue), wire.DeadKey(queue), key}, id).Int()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	if n == 0 {
		return fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	}
	history.Ended(ctx, d.redis, queue, id, l.kind, l.Payload, history.Deleted, l.Reason)
	if l.blobs != nil {
		d.client.Contents.Drop(ctx, key, l.blobs)
	}
	return nil
}
