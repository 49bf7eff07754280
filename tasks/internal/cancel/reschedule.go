package cancel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// A message is given another time by another payload for its task, which stays the same: the time when it is due is in there,
// and its age counts from that. A script compares and writes both, so that a worker takes the message either before, with its
// old time, and then it is too late, or after, with the new one.

// changedOften is how often the record of a task is read again that has changed since. A worker may forward it, or a person pause it.
const changedOften = 5

// tooLateError is mailer.ErrTooLate in the words of who wants another time.
type tooLateError struct{ id, why string }

func (e *tooLateError) Error() string {
	return fmt.Sprintf("tasks: %s: too late for another time: %s", e.id, e.why)
}

// Is makes the error mailer.ErrTooLate.
func (e *tooLateError) Is(target error) bool { return target == mailer.ErrTooLate }

// Reschedule gives a message that waits the time of sending that it would have had if it had been handed over with it. first is as
// in Message. The error is mailer.ErrTooLate, mailer.ErrNoTask or mailer.ErrInBulk, of class Permanent if the message may not
// be sent so late, or reports that Redis could not be asked.
func (c Canceller) Reschedule(ctx context.Context, client *producer.Producer, first wire.QueueName, id string, at time.Time) error {
	err := c.wherever(ctx, first, id, func(ctx context.Context, place wire.QueueName, id string) error {
		return c.rescheduleIn(ctx, client, place, id, at)
	})
	if errors.Is(err, errMoving) {
		return &tooLateError{id, "it is about to move, or to become a dead letter"}
	}
	return err
}

// rescheduleIn is Reschedule in one queue.
func (c Canceller) rescheduleIn(ctx context.Context, client *producer.Producer, place wire.QueueName, id string, at time.Time) error {
	for range changedOften {
		answer, err := c.reschedule(ctx, client, place, id, at)
		if err != nil {
			return err
		}
		next, replaced := strings.CutPrefix(answer, "replaced:")
		switch {
		case replaced:
			id = next
		case answer == asynqbatch.Rescheduled:
			return nil
		case answer == asynqbatch.DueNow:
			client.Hints.Queued(ctx, place.String(), true)
			return nil
		case answer == asynqbatch.NotThere:
			return c.notAlone(ctx, place, id)
		case answer == asynqbatch.Moving:
			return errMoving
		case answer == asynqbatch.TooLate:
			return &tooLateError{id, "a worker has it, it is to be tried again, or it has ended"}
		}
	}
	return &tooLateError{id, "its task changes all the time"}
}

// reschedule reads the record of a task and writes it with another time. It answers as asynqbatch.Reschedule does.
func (c Canceller) reschedule(ctx context.Context, client *producer.Producer, place wire.QueueName, id string, at time.Time) (answer string, err error) {
	fields, err := c.Redis.HMGet(ctx, asynqbatch.TaskKey(place.String(), id), "state", "msg", wire.FieldReplayed, wire.FieldCancelled, wire.FieldWire).Result()
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	var texts [5]string
	for i, v := range fields {
		texts[i], _ = v.(string)
	}
	state, message, next, cancelled, onWire := texts[0], texts[1], texts[2], texts[3], texts[4]
	task, ok := asynqbatch.ReadMessage(message)
	switch {
	case cancelled != "":
		return asynqbatch.NotThere, nil
	case next != "":
		return "replaced:" + next, nil
	case message == "" || !ok || task.Type != wire.TaskType:
		return asynqbatch.NotThere, nil
	case onWire == wire.Decided && state != "archived" && state != "completed":
		return asynqbatch.Moving, nil
	case state != "pending" && state != "scheduled":
		return asynqbatch.TooLate, nil
	}
	p, err := wire.Decode(task.Payload, nil)
	switch {
	case err != nil:
		return "", err
	case p.Refused != "":
		return asynqbatch.TooLate, nil // it becomes a dead letter
	}
	p, err = handover.DueAt(p, at, time.Now())
	if err != nil {
		return "", err
	}
	data, err := client.Encode(ctx, p)
	if err != nil {
		return "", err
	}
	answer, err = asynqbatch.Reschedule(ctx, c.Redis, place.String(), id, message, data, p.Mailing, p.DueAt)
	if err != nil {
		return "", redisconn.Unavailable(err)
	}
	return answer, nil
}

// notAlone says why there is no task of a message's own in a queue: it may travel with others.
func (c Canceller) notAlone(ctx context.Context, place wire.QueueName, id string) error {
	if task, index, ok := wire.SplitID(id); ok {
		place.Bulk = true
		records, err := find.Records(ctx, c.Redis, task, place)
		switch {
		case err != nil:
			return err
		case len(records) > 0 && index < wire.Count(records[0].Payload):
			return fmt.Errorf("tasks: %s: %w", id, mailer.ErrInBulk)
		}
	}
	return fmt.Errorf("tasks: %s: %w", id, mailer.ErrNoTask)
}
