package tasks

import (
	"context"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

// places are how many tasks a server can have in hand at once.
type places struct {
	all    int
	enough int // to ask Redis for tasks

	mu     sync.Mutex
	busy   int           // tasks that a handler has
	given  []time.Time   // when asynq got those that no handler has yet
	waited bool          // somebody waits for enough
	freed  chan struct{} // holds a token when there are enough for who waits
}

const (
	// mostAtOnce is how many tasks are taken in one round trip, at most.
	mostAtOnce = 32

	// gatherFor is how long a server waits until it has enough places for tasks, at most.
	gatherFor = 2 * time.Millisecond
)

func newPlaces(all int) *places {
	return &places{all: all, enough: min(max(all/4, 1), mostAtOnce), freed: make(chan struct{}, 1)}
}

// handler counts the tasks that another handler has in hand.
func (p *places) handler(h asynq.Handler) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		p.enter()
		defer p.leave()
		return h.ProcessTask(ctx, task)
	})
}

// give notes that asynq has got a task.
func (p *places) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given = append(p.given, time.Now())
}

func (p *places) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
	if len(p.given) > 0 {
		p.given = p.given[1:]
	}
}

func (p *places) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if p.waited && p.free() >= p.enough {
		p.waited = false
		p.freed <- struct{}{}
	}
}

// free is how many places there are. A task that asynq has had for long is one that it gives to no
// handler: it cannot be read. p.mu is held.
func (p *places) free() int {
	for len(p.given) > 0 && time.Since(p.given[0]) > shelfLife {
		p.given = p.given[1:]
	}
	return p.all - p.busy - len(p.given)
}

// wait returns for how many tasks there are places, at least one. If there are few it waits a
// moment for more: the senders have the tasks of all others to go on with.
func (p *places) wait() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free() < p.enough {
		p.waited = true
		p.mu.Unlock()
		timer := time.NewTimer(gatherFor)
		select {
		case <-p.freed:
		case <-timer.C:
		}
		timer.Stop()
		p.mu.Lock()
		p.waited = false
		select {
		case <-p.freed:
		default:
		}
	}
	return min(max(p.free(), 1), mostAtOnce)
}
