package tasks

import (
	"context"
	"time"

	"github.com/mailpouch/mailpouch/tasks/internal/cancel"
)

const onWireFor = 10 * time.Second

// Cancel takes a message back by the ID that Enqueue returned, from the queue that
// Options name, in whichever part of it and for whichever mailer it waits. Nil means that it has not been
// sent and will not be: it was waiting, or
// a worker that has it will drop it. Else the error is ErrTooLate, ErrNoTask, or
// reports that Redis could not be asked. An idempotency key is free again afterwards, whether a worker
// has the message yet or not.
func (q *Queue) Cancel(ctx context.Context, id string) error {
	return q.canceller().Message(ctx, q.queueOf(id), id)
}

// Reschedule gives a message that waits another time of sending, by the ID that Enqueue returned, as if it had been handed over with
// that (Options.ProcessAt): its age counts from there, and so does a Date that was not given. A time that is over means now. The
// message is found as Cancel finds it, and goes behind what waits already.
//
// The error is ErrTooLate if a worker has the message, or a try has failed; ErrInBulk if it travels with others; ErrNoTask; of
// class Permanent if Options.Deadline is before that time; or it reports that Redis could not be asked, or has not answered. To
// ask again is safe.
func (q *Queue) Reschedule(ctx context.Context, id string, at time.Time) error {
	return q.canceller().Reschedule(ctx, q.client, q.queueOf(id), id, at)
}

// CancelledMailing is what came of a mailing.
type CancelledMailing struct {
	Cancelled int // messages that were not sent and will not be
	TooLate   int // of those that Redis has something of yet: they are on the wire, were or may have been sent, or are dead letters
}

// CancelMailing takes back all messages of a mailing that are not on the wire, in all queues and for all mailers: those that
// wait, are scheduled, are to be tried again, and those that workers have in hand. It goes on for as long as it finds some, and
// so while the mailing is still handed over, and then waits up to ten seconds for those on the wire,
// for what the relay refuses for now is taken back too. If it returns an error the mailing stays paused, and
// it can be called again.
func (q *Queue) CancelMailing(ctx context.Context, name string) (CancelledMailing, error) {
	cancelled, tooLate, err := q.canceller().Mailing(ctx, name)
	return CancelledMailing{Cancelled: cancelled, TooLate: tooLate}, err
}

func (q *Queue) canceller() cancel.Canceller {
	return cancel.Canceller{Redis: q.redis, Held: q.heldFor(), OnWire: onWireFor, Shards: q.cfg.Shards}
}
