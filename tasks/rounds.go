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

// A task that could not even be tried goes back to its queue, at no cost. What comes back again and again would
// go round for ever, so its pauses grow, and it is said once what is missing.

// advice is what to do about tasks that come back for a reason again and again.
func advice(why BackReason) string {
	switch why {
	case BackTime:
		return "messages find no free connection for so long that they go back to their queue, again and again: " +
			"look whether the relay is slow, and raise EMAIL_CONNECTIONS or start more workers"
	case BackMemory:
		return "messages find no memory for so long that they go back to their queue, again and again: raise EMAIL_WORKER_MEMORY"
	case BackContents:
		return "messages go back to their queue again and again, for Redis does not give out their attachments or bodies: look at Redis and its log"
	case BackRedis:
		return "messages go back to their queue again and again, for Redis does not take down what became of them: " +
			"look at Redis and its log (is it full, or a read-only replica?)"
	case BackHeld, BackPaused, BackAlone, BackRate, BackForeign:
	}
	return "messages go back to their queue untried again and again"
}

const (
	manyRounds   = 3 // so often a task comes back in a row before it is worth a word
	longestRound = 10 * time.Minute
	wordsEvery   = time.Hour // for each reason
	mostRounds   = 10_000    // tasks of which rounds are remembered
)

// rounds counts how often tasks have come back in a row.
type rounds struct {
	log zerolog.Logger

	mu     sync.Mutex
	tasks  map[string]round
	warned map[BackReason]time.Time
}

type round struct {
	n        int
	progress int // how much of it was done when it came back
}

func newRounds(log zerolog.Logger) *rounds {
	return &rounds{log: log, tasks: map[string]round{}, warned: map[BackReason]time.Time{}}
}

// again notes that a task comes back, of which so much is done, and returns for how long it is to rest.
func (r *rounds) again(key string, name wire.QueueName, why BackReason, progress int, now time.Time) time.Duration {
	if why == BackHeld || why == BackAlone || why == BackPaused || why == BackRate {
		return 0 // that ends by itself, or by somebody's hand, and is logged when it begins
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[key]
	if progress > t.progress {
		t.n = 0
	}
	t.n, t.progress = t.n+1, max(t.progress, progress)
	if len(r.tasks) >= mostRounds {
		clear(r.tasks)
	}
	r.tasks[key] = t
	if t.n >= manyRounds && now.Sub(r.warned[why]) >= wordsEvery {
		r.warned[why] = now
		r.log.Warn().Str("task", key).Str("queue", name.Queue).Str("mailer", name.Mailer).Int("times", t.n).Msg(advice(why))
	}
	return roundPause(t.n)
}

// roundPause is how long a task rests that has come back so often: not at all the first time, then a second, and
// twice as long each time.
func roundPause(n int) time.Duration {
	if n < 2 {
		return 0
	}
	return min(time.Second<<min(n-2, 20), longestRound)
}

// forget notes that a task has ended, or has had a try.
func (r *rounds) forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tasks, key)
}

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
			return &givenBackError{why: BackForeign, delay: asynqbatch.PutOffMin}
		}
		s.log.Debug().Err(redisconn.Unavailable(err)).Str("task", t.id).Msg("a foreign task cannot be put off: trying again")
		select {
		case <-ctx.Done():
			return givenBack(BackForeign)
		case <-time.After(time.Second):
		}
	}
}
