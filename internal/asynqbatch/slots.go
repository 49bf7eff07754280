package asynqbatch

import (
	"context"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

// slots are how many tasks a server can have at once. asynq counts its own, but does not tell: so what asynq was
// given is counted here, and what its handlers have.
type slots struct {
	all    int
	enough int // to ask Redis for tasks

	mu     sync.Mutex
	most   int           // tasks that it may have for now; all if it is more
	busy   int           // tasks that a handler has
	given  []time.Time   // when asynq got those that no handler has yet
	waited bool          // the fetcher waits for enough
	freed  chan struct{} // holds a token when there are enough for it
}

const (
	// mostAtOnce is how many tasks are fetched in one round trip, at most.
	mostAtOnce = 32

	// prefetchedFor is how long a task waits for asynq at most, a small part of its lease. It waits
	// as long as it takes asynq to end another one: that is long only if Redis is away.
	prefetchedFor = time.Second

	// gatherFor is how long a server waits until it has enough slots for tasks, at most.
	gatherFor = 2 * time.Millisecond
)

func newSlots(all int) *slots {
	return &slots{all: all, most: all, enough: min(max(all/4, 1), mostAtOnce), freed: make(chan struct{}, 1)}
}

// handler counts the tasks that another handler has.
func (s *slots) handler(h asynq.Handler) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		s.enter()
		defer s.leave()
		return h.ProcessTask(ctx, task)
	})
}

// give notes that asynq has got a task.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, time.Now())
}

func (s *slots) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	if len(s.given) > 0 {
		s.given = s.given[1:]
	}
}

func (s *slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if s.waited && s.plenty() {
		s.waited = false
		s.freed <- struct{}{}
	}
}

// settleFor is how long asynq may take until a handler begins a task, at most.
const settleFor = 500 * time.Millisecond

// settle waits until handlers have begun what asynq was given.
func (s *slots) settle() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(settleFor); time.Now().Before(end); <-tick.C {
		s.mu.Lock()
		all := len(s.given) == 0
		s.mu.Unlock()
		if all {
			return
		}
	}
}

// allow notes how many tasks the server may have for now.
func (s *slots) allow(most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = min(most, s.all)
}

// room is how many tasks may be fetched. s.mu is held.
func (s *slots) room() int { return s.free() - (s.all - s.most) }

// plenty reports whether it is worth a round trip to fetch tasks. s.mu is held.
func (s *slots) plenty() bool { return s.room() >= min(s.enough, s.most) }

// patience is how long to wait for that: asynq, which has a slot, asks again only after a while if it gets nothing. s.mu is held.
func (s *slots) patience() time.Duration {
	if s.room() > 0 || s.most == s.all {
		return gatherFor
	}
	return CheckInterval
}

// free is how many slots are free. A task that asynq has had for long is one that it gives to no
// handler: it cannot be read. s.mu is held.
func (s *slots) free() int {
	for len(s.given) > 0 && time.Since(s.given[0]) > prefetchedFor {
		s.given = s.given[1:]
	}
	return s.all - s.busy - len(s.given)
}

// taken is how many slots are not free.
func (s *slots) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all - s.free()
}

// wait returns how many tasks may be fetched, and for how many there are free slots if all may be, at least one. If these are few
// it waits a moment for more: the handlers have all other tasks to go on with.
func (s *slots) wait() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if patience := s.patience(); !s.plenty() {
		s.waited = true
		s.mu.Unlock()
		timer := time.NewTimer(patience)
		select {
		case <-s.freed:
		case <-timer.C:
		}
		timer.Stop()
		s.mu.Lock()
		s.waited = false
		select {
		case <-s.freed:
		default:
		}
	}
	least := 1 // asynq has a slot for what it asks for
	if s.most < s.all {
		least = 0
	}
	return min(max(s.room(), least), mostAtOnce)
}
