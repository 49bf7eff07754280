package asynqbatch

import (
	"slices"
	"sync"
)

// waker is who may wait for tasks. hint says that a queue has got one, and reports whether it was waiting.
type waker interface {
	hint(queue string) (waits bool)
}

// wakers are those that may wait, by their queues: first those that have the fewest. The zero value is ready for use.
type wakers struct {
	mu     sync.Mutex
	queues map[string][]served
}

// served is one of a queue's, and how many queues it has.
type served struct {
	waker
	queues int
}

func (w *wakers) add(f waker, queues []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queues == nil {
		w.queues = map[string][]served{}
	}
	for _, queue := range queues {
		all := append(w.queues[queue], served{f, len(queues)})
		slices.SortStableFunc(all, func(a, b served) int { return a.queues - b.queues })
		w.queues[queue] = all
	}
}

func (w *wakers) remove(f waker, queues []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range queues {
		left := slices.DeleteFunc(w.queues[queue], func(other served) bool { return other.waker == f })
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
