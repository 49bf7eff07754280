package find

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Record is what Redis has of a task in one of asynq's queues.
type Record struct {
	asynqbatch.Message
	Place wire.QueueName
	ID    string
	State string // asynq's: pending, active, scheduled, retry, archived, completed

	Next      string // not empty: a mark. The ID of the task that has taken its place, or may
	Cancelled bool
	Decided   bool   // it is about to move, or to become a dead letter
	Noted     string // the reason of a dead letter, with addresses, if it is noted
}

// Records returns what there is of the task with an ID in these places, in one round trip.
func Records(ctx context.Context, client redis.UniversalClient, id string, places ...wire.QueueName) ([]Record, error) {
	answers := make([]*redis.SliceCmd, len(places))
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, place := range places {
			answers[i] = p.HMGet(ctx, asynqbatch.TaskKey(place.String(), id),
				"state", "msg", wire.FieldReplayed, wire.FieldCancelled, wire.FieldReason, wire.FieldWire)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	var found []Record
	for i, place := range places {
		fields := make([]string, 6)
		for n, v := range answers[i].Val() {
			fields[n], _ = v.(string)
		}
		if fields[0] != "" {
			message, _ := asynqbatch.ReadMessage(fields[1]) // what cannot be read is empty
			found = append(found, Record{
				Message: message, Place: place, ID: id, State: fields[0],
				Next: fields[2], Cancelled: fields[3] != "", Noted: fields[4], Decided: fields[5] == wire.Decided,
			})
		}
	}
	return found, nil
}

// Base is what the names of all that comes of the task begin with.
func (r Record) Base() string {
	meta, err := wire.DecodeMeta(r.Payload)
	if err != nil {
		return r.ID
	}
	return meta.BaseID(r.ID)
}

// Reason is the whole reason why the task has failed last.
func (r Record) Reason() string { return Reason(r.Noted, r.LastError) }

// Reason is the whole reason why a task has failed last, of what is noted and what asynq has: that is without addresses, and
// a note may be of a failure before.
func Reason(noted, lastErr string) string {
	if lastErr == "" || redact.Reason(noted, false) == lastErr {
		return noted
	}
	return lastErr
}

// Queues are the names of all queues, as asynq has them.
func Queues(ctx context.Context, client redis.UniversalClient) ([]wire.QueueName, error) {
	names, err := client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	list := make([]wire.QueueName, len(names))
	for i, name := range names {
		list[i] = wire.ParseQueueName(name)
	}
	return list, nil
}
