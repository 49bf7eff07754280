package tasks

import (
	"errors"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/internal/sweep"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// newSweeper returns what makes dead letters of mail that waits in Redis until its time is up. While the relay is away
// no worker may have that in hand.
func (w *Worker) newSweeper() *sweep.Sweeper {
	return sweep.New(w.redis, sweep.Config{
		Serves: w.serves, Expired: w.expiredInRedis, Horizon: w.cfg.RetryMax, Every: w.cfg.sweepEvery, Logger: w.log,
		Swept: func(queue string, why sweep.Why, tasks int) {
			name := wire.ParseQueueName(queue)
			w.observers.swept(Swept{Queue: name.Queue, Mailer: name.Mailer, Why: string(why), Tasks: tasks})
		},
	})
}

// serves reports whether this worker takes from a queue of asynq's, or would if that had fewer parts.
func (w *Worker) serves(queue string) bool {
	name := wire.ParseQueueName(queue)
	return w.dispatchers[name.Mailer] != nil && w.cfg.Queues[name.Queue] > 0
}

// expiredInRedis is expired for a message that waits in Redis.
func (w *Worker) expiredInRedis(_ string, m wire.Meta, now time.Time) error {
	if m.Refused != "" { // it is to be a dead letter, as soon as a worker takes it
		return errors.New(m.Refused)
	}
	a := attempt{now: now, due: m.DueAt}
	if m.Deadline != nil {
		a.deadline = *m.Deadline
	}
	reason := w.policy.expired(a, 0)
	if via := w.dispatchers[m.Using]; reason != nil && via != nil {
		if held := via.held(); held != nil {
			return fmt.Errorf("%w: %w", reason, held)
		}
	}
	return reason
}
