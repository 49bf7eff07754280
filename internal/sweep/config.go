package sweep

import (
	"cmp"
	"context"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Config configures a Sweeper. Serves and Expired are required.
type Config struct {
	// Serves reports whether this worker decides about the age of what waits in a queue of asynq's.
	Serves func(queue string) bool

	// Expired returns why a message that waits in a queue is not sent any more at that time, nil if it may be.
	Expired func(queue string, m wire.Meta, now time.Time) error

	// Horizon is for how long a message may be put off, at most. What is scheduled for later than that waits for the
	// time that it was handed over for, and has not expired.
	Horizon time.Duration

	// Every is how often a queue is looked at: each minute if zero. What has waited for less is not read. Lost tasks are
	// searched ten times as seldom, and looked at twice, so far apart.
	Every time.Duration

	// Swept is called for each group of tasks of which dead letters were made. Nil: nobody asks.
	Swept func(queue string, why Why, tasks int)

	// Buried is called with the IDs of tasks of which dead letters were made. Nil: nobody asks.
	Buried func(ctx context.Context, queue string, ids []string)

	Events events.Config // of which the dead letters have some

	Logger zerolog.Logger

	pace // for tests
}

// Why is why a sweep has made dead letters.
type Why string

// The reasons.
const (
	Expired Why = "expired" // their time was up
	Lost    Why = "lost"    // no list named them
)

// pace is how often, and how carefully, is swept.
type pace struct {
	every     time.Duration // from one look at a queue for what has expired to the next
	lostEvery time.Duration // from one search for lost tasks to the next
	again     time.Duration // from the first look at a lost task to the second
	minAge    time.Duration // what has been waiting for less is not looked at
	pause     time.Duration // between two commands
	rest      int           // and so many times as long as the last one took; -1: none
	short     int           // a list that is no longer is compared as a whole
	page      int           // of a list that is longer
}

func (p pace) withDefaults(every time.Duration) pace {
	p.every, p.lostEvery = cmp.Or(p.every, every), cmp.Or(p.lostEvery, 10*every)
	p.again, p.minAge = cmp.Or(p.again, every), cmp.Or(p.minAge, every)
	p.pause = cmp.Or(p.pause, 20*time.Millisecond)
	p.rest, p.short, p.page = cmp.Or(p.rest, 9), cmp.Or(p.short, 1000), cmp.Or(p.page, 5000)
	return p
}

// Sweeper sweeps the queues of one Redis.
type Sweeper struct {
	redis redis.UniversalClient
	cfg   Config
}

// wait is false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// slowly calls do, which asks Redis once, and leaves it to others for a while: longer after what has taken long.
func (s *Sweeper) slowly(ctx context.Context, do func() error) error {
	begun := time.Now()
	if err := do(); err != nil {
		return err
	}
	if !wait(ctx, max(s.cfg.pause, time.Duration(s.cfg.rest)*time.Since(begun))) {
		return ctx.Err()
	}
	return nil
}

// sweptKey is a hash: when each queue was last looked at for what has expired, and lostField: when lost tasks were last
// searched for, in seconds of Redis's clock.
const (
	sweptKey  = "mailpouch:sweep"
	lostField = "*"
)

// claimScript returns those of the fields ARGV[2] and what follows that were last claimed ARGV[1] seconds ago or
// earlier, and claims them.
var claimScript = redis.NewScript(`
local now, due = tonumber(redis.call("TIME")[1]), {}
for i = 2, #ARGV do
  local last = tonumber(redis.call("HGET", KEYS[1], ARGV[i]) or 0)
  if last > now or now - last >= tonumber(ARGV[1]) then
    redis.call("HSET", KEYS[1], ARGV[i], now)
    due[#due + 1] = ARGV[i]
  end
end
return due`)

// claim returns which of the fields of sweptKey this worker is to sweep now, since no other has for so long.
func (s *Sweeper) claim(ctx context.Context, every time.Duration, fields ...string) ([]string, error) {
	args := make([]any, 0, 1+len(fields))
	args = append(args, every.Seconds())
	for _, f := range fields {
		args = append(args, f)
	}
	return claimScript.Run(ctx, s.redis, []string{sweptKey}, args...).StringSlice()
}

// eventsOf are the events of a task that is about to be a dead letter, as events.OfTask has them.
func (s *Sweeper) eventsOf(id string, task asynqbatch.Message, reason string) []byte {
	if !s.cfg.Events.On() {
		return nil
	}
	return events.OfTask(task.Type, id, task.Payload, task.Retried, events.Failed, reason)
}

// queueKeys are the keys of a queue's lists, in the order of the scripts: pending, active, scheduled, retry, archived,
// and the dead letters beside that.
func queueKeys(queue string) []string {
	prefix := "asynq:{" + queue + "}:"
	return []string{prefix + "pending", prefix + "active", prefix + "scheduled", prefix + "retry", prefix + "archived", wire.DeadKey(queue)}
}
