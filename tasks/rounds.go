package tasks

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

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
	case BackHeld, BackAlone, BackForeign:
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
	if why == BackHeld || why == BackAlone {
		return 0 // that ends by itself, and is logged when it begins
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
