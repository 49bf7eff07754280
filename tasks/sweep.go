package tasks

import (
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/sweep"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// inRedis is what a worker knows of mail that waits in Redis, and that it does not have in hand.
type inRedis struct {
	queues map[string]int
	held   map[string]func() error // by mailer: why its relay takes no mail
	policy policy
}

// newSweeper returns what makes dead letters of mail that waits in Redis until its time is up. While the relay is away
// no worker may have that in hand.
func newSweeper(client redis.UniversalClient, m inRedis, horizon, every time.Duration, log zerolog.Logger, told observers) *sweep.Sweeper {
	return sweep.New(client, sweep.Config{
		Serves: m.serves, Expired: m.expired, Horizon: horizon, Every: every, Logger: log,
		Swept: func(queue string, why sweep.Why, tasks int) {
			name := wire.ParseQueueName(queue)
			told.swept(Swept{Queue: name.Queue, Mailer: name.Mailer, Why: string(why), Tasks: tasks})
		},
	})
}

// serves reports whether the worker takes from a queue of asynq's, or would if that had fewer parts.
func (m inRedis) serves(queue string) bool {
	name := wire.ParseQueueName(queue)
	return m.held[name.Mailer] != nil && m.queues[name.Queue] > 0
}

// expired returns why a message may not be sent any more, and what it has waited for.
func (m inRedis) expired(_ string, meta wire.Meta, now time.Time) error {
	if meta.Refused != "" { // it is to be a dead letter, as soon as a worker takes it
		return errors.New(meta.Refused)
	}
	a := attempt{now: now, due: meta.DueAt}
	if meta.Deadline != nil {
		a.deadline = *meta.Deadline
	}
	reason := m.policy.expired(a, 0)
	if held := m.held[meta.Using]; reason != nil && held != nil {
		if why := held(); why != nil {
			return fmt.Errorf("%w: %w", reason, why)
		}
	}
	return reason
}
