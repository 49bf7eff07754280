package tasks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A task that is not this worker's to judge goes back, for longer each time: one of another program, which uses asynq on
// the same Redis and queues of the same names, since asynq's keys have no prefix; and one that a newer version of this
// program has queued, which a newer worker will take. Neither may become a dead letter, nor keep a worker busy.

// foreign returns why a task is not ours, and what it is; "" if it is ours.
func foreign(task *asynq.Task) (why Foreign, what string) {
	switch task.Type() {
	case wire.TaskType, wire.TaskTypeBulk:
		if v, ok := wire.Newer(task.Payload()); ok {
			return ForeignVersion, fmt.Sprint("version ", v)
		}
		return "", ""
	}
	return ForeignType, redact.Cut(redact.Line(task.Type()), maxForeignName)
}

const (
	maxForeignName = 100  // characters of a type, which may be anything
	maxForeign     = 1000 // kinds that are named
)

// strangers puts foreign tasks off, and says once of each kind that there are some.
type strangers struct {
	asynq putterOff
	log   zerolog.Logger
	told  observers

	mu   sync.Mutex
	seen map[string]bool
}

// putterOff puts a task off: an asynqbatch.Client.
type putterOff interface {
	PutOff(ctx context.Context, key string) (time.Duration, error)
}

func newStrangers(asynq putterOff, log zerolog.Logger, told observers) *strangers {
	return &strangers{asynq: asynq, log: log, told: told, seen: map[string]bool{}}
}

// first reports whether a kind was not met before.
func (s *strangers) first(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[what] || len(s.seen) >= maxForeign {
		return false
	}
	s.seen[what] = true
	return true
}

// say names a kind of foreign tasks.
func (s *strangers) say(queue string, why Foreign, what string) {
	if !s.first(string(why) + what) {
		return
	}
	line := s.log.Warn().Str("queue", queue).Str("what", what)
	if why == ForeignVersion {
		line.Msg("tasks of a newer version are left to a newer worker: upgrade this one")
		return
	}
	line.Msg("tasks of another program are put off again and again: give it another Redis database, or queues of other names, " +
		"for it may also take our mail")
}

// putOff puts a foreign task off, at no cost to it.
func (s *strangers) putOff(ctx context.Context, t *taskMessage, why Foreign, what string) error {
	s.say(t.queue, why, what)
	s.told.foreign(why)
	for {
		_, err := s.asynq.PutOff(ctx, t.key)
		if err == nil { // asynq is not heard then, or the task is another worker's
			return &givenBackError{BackForeign, asynqbatch.PutOffMin}
		}
		s.log.Debug().Err(redisconn.Unavailable(err)).Str("task", t.id).Msg("a foreign task cannot be put off: trying again")
		select {
		case <-ctx.Done():
			return givenBack(BackForeign)
		case <-time.After(time.Second):
		}
	}
}
