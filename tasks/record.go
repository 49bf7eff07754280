package tasks

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// record is what Redis has of a task in one of asynq's queues.
type record struct {
	asynqbatch.Message
	place wire.QueueName
	id    string
	state string // asynq's: pending, active, scheduled, retry, archived, completed

	next      string // not empty: a mark. The ID of the task that has taken its place, or may
	cancelled bool
	decided   bool   // it is about to move, or to become a dead letter
	reason    string // of a dead letter, with addresses, if it is noted
}

// readRecords returns what there is of the task with an ID in these places, in one round trip.
func readRecords(ctx context.Context, client redis.UniversalClient, id string, places ...wire.QueueName) ([]record, error) {
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
	var found []record
	for i, place := range places {
		fields := make([]string, 6)
		for n, v := range answers[i].Val() {
			fields[n], _ = v.(string)
		}
		if fields[0] != "" {
			message, _ := asynqbatch.ReadMessage(fields[1]) // what cannot be read is empty
			found = append(found, record{
				Message: message, place: place, id: id, state: fields[0],
				next: fields[2], cancelled: fields[3] != "", reason: fields[4], decided: fields[5] == wire.Decided,
			})
		}
	}
	return found, nil
}

// base is what the names of all that comes of the task begin with.
func (r record) base() string {
	meta, err := wire.DecodeMeta(r.Payload)
	if err != nil {
		return r.id
	}
	return meta.BaseID(r.id)
}

// queueNames are the names of all queues, as asynq has them.
func queueNames(ctx context.Context, client redis.UniversalClient) ([]wire.QueueName, error) {
	names, err := client.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	list := make([]wire.QueueName, len(names))
	for i, name := range names {
		list[i] = wire.ParseQueueName(name)
	}
	return list, nil
}
