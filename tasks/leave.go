package tasks

import (
	"context"
	"encoding/json"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// noteScript writes an entry of a task that is there.
const noteScript = `
if redis.call("EXISTS", KEYS[1]) == 1 then redis.call("HSET", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

// note writes an entry for a message.
func (l *ledger) note(ctx context.Context, t *ticket, r wire.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.correct(t, string(data))
	if err := l.redis.Eval(ctx, noteScript, []string{t.key}, wire.FieldSent+t.slot, string(data)).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// leaveScript writes the entry of a message that is about to leave its mass task, if the try
// ARGV[3] has it still, and it has no entry.
const leaveScript = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 1 end
local wire, sent = unpack(redis.call("HMGET", KEYS[1], ARGV[1], ARGV[2]))
if sent or wire ~= ARGV[3] and wire ~= "decided" then return 0 end
redis.call("HSET", KEYS[1], ARGV[2], ARGV[4])
return 1`

// leaves notes how a message is to go on. It is false if another run of its mass task
// decides about it: asynq has given that out again.
func (l *ledger) leaves(ctx context.Context, t *ticket, how wire.Remainder) (bool, error) {
	data, err := json.Marshal(wire.Record{Moved: true, Rest: &how})
	if err != nil {
		return false, err
	}
	ours, err := l.redis.Eval(ctx, leaveScript, []string{t.key}, wire.FieldWire+t.slot, wire.FieldSent+t.slot, t.token, string(data)).Bool()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	return ours, nil
}

// hasLeft tells the mass task that a message comes from that it has left: what is on its way
// alone must not be sent there again, though a worker may have died before it noted that.
func (l *ledger) hasLeft(ctx context.Context, t *ticket) error {
	task, _, ok := wire.SplitID(t.id)
	if !ok || t.retried > 0 {
		return nil
	}
	there := *t
	there.name.Bulk, there.slot = true, t.id[len(task):]
	names := []wire.QueueName{there.name}
	if t.name.Mailer != "" { // it may have been forwarded
		there.name.Mailer = ""
		names = append(names, there.name)
	}
	for _, name := range names {
		there.key = asynqbatch.TaskKey(name.String(), task)
		if err := l.note(ctx, &there, wire.Record{Moved: true}); err != nil {
			return err
		}
	}
	return nil
}

// correct replaces what is remembered of a message.
func (l *ledger) correct(t *ticket, data string) {
	if t.payload == nil {
		return // it cannot be read, so it was not sent
	}
	name := entryName(t.key, t.payload.Generation(), t.slot)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.recent[name]; ok {
		l.recent[name] = data
	}
}
