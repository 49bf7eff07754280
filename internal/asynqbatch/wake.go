package asynqbatch

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// asynq asks its queues one after the other, and pauses when none has a task. That pause cannot be cut short, so the one
// that counts is made here: the fetcher keeps asynq waiting for its answer, until a hint says that a queue has got
// a task, or it is time to look again.
//
//	asynq asks:     A        B        C ............ (task of B)
//	Redis is asked: A: none  B: none  C: none     B: a task
//	                                       hint: B
//
// A hint names a worker that waits: see wire.WaitingKey. So one process wakes for a task, however many there are.

// roundPause is how long asynq pauses between two rounds through its queues, on average.
const roundPause = time.Millisecond

// Wake says that a queue has got a task: one server that waits for tasks of that queue looks for it at once. It may be told
// for nothing, and of any queue.
func (c *Client) Wake(queue string) { c.wakers.wake(queue) }

// wakers are the fetchers of all servers that may wait, by their queues. The zero value is ready for use.
type wakers struct {
	mu     sync.Mutex
	queues map[string][]*fetcher
}

func (w *wakers) add(f *fetcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queues == nil {
		w.queues = map[string][]*fetcher{}
	}
	for _, queue := range f.queues {
		// First the one that has the fewest queues, so that it is there for these.
		all := append(w.queues[queue], f)
		slices.SortStableFunc(all, func(a, b *fetcher) int { return len(a.queues) - len(b.queues) })
		w.queues[queue] = all
	}
}

func (w *wakers) remove(f *fetcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range f.queues {
		left := slices.DeleteFunc(w.queues[queue], func(other *fetcher) bool { return other == f })
		if w.queues[queue] = left; len(left) == 0 {
			delete(w.queues, queue)
		}
	}
}

func (w *wakers) wake(queue string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.queues[queue] {
		if f.hint(queue) {
			return
		}
	}
}

// hint says that a queue has got a task, and reports whether the fetcher was waiting for one. If not it asks for tasks
// of that queue when it asks for any.
func (f *fetcher) hint(queue string) (waits bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.empty, pendingKey(queue))
	f.hinted++
	if waits, f.waits = f.waits, false; waits {
		select {
		case f.hints <- queue:
		default:
		}
	}
	return waits
}

func (f *fetcher) hintsSoFar() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hinted
}

// full notes whether the server may have no more tasks for now.
func (f *fetcher) full(none bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.none = none
}

// wait waits for a task if there is none for the server, and returns the queue of which a hint says that it has one. After
// a while it returns "", and then all queues are to be looked at.
func (f *fetcher) wait() (queue string) {
	f.mu.Lock()
	f.waits = f.idle()
	waits := f.waits
	f.mu.Unlock()
	if !waits {
		return ""
	}
	pause := f.interval
	if !f.eager() {
		pause = max(pause, CheckInterval)
	}
	timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // so that servers do not ask in step
	defer timer.Stop()
	select {
	case queue = <-f.hints:
	case <-timer.C:
	case <-f.stopped:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits = false
	if queue == "" {
		clear(f.empty)
	}
	return queue
}

// idle reports whether there is nothing to ask Redis for. f.mu is held.
func (f *fetcher) idle() bool {
	if len(f.queues) == 0 || len(f.prefetched) > 0 {
		return false
	}
	return f.none || !slices.ContainsFunc(f.queues, func(queue string) bool {
		_, empty := f.empty[pendingKey(queue)]
		return !empty && !f.asleep(queue)
	})
}

// asleep reports whether somebody knows that a queue has no tasks.
func (f *fetcher) asleep(queue string) bool {
	return f.base.cfg.Asleep != nil && f.base.cfg.Asleep(queue)
}

// waitNoMore ends a wait that is under way, and all others at once.
func (f *fetcher) waitNoMore() {
	f.stop.Do(func() {
		close(f.stopped)
		f.base.wakers.remove(f)
	})
}

func pendingKey(queue string) string { return "asynq:{" + queue + "}:pending" }

// fetchKeysOf are the keys of asynq's script that fetches a task.
func fetchKeysOf(queue string) []string {
	prefix := "asynq:{" + queue + "}:"
	return []string{fetchPending: prefix + "pending", fetchPaused: prefix + "paused", fetchActive: prefix + "active", fetchLease: prefix + "lease"}
}
