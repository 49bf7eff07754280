package tasks

import (
	"runtime"
	"sync"
)

// trips lets what many goroutines want of Redis at the same time share round trips. There is no
// timer in it: what comes while others are under way waits for one of them, and
// then goes together.
type trips[T any] struct {
	do func([]T) // in one round trip

	mu      sync.Mutex
	waiting []T
	trips   int // under way
}

// mostTrips is how many round trips are under way at once: with one, few connections would wait for
// each other; with many, they would share none.
const mostTrips = 2

func newTrips[T any](do func([]T)) *trips[T] { return &trips[T]{do: do} }

// add has something done, maybe before it returns.
func (t *trips[T]) add(items ...T) {
	t.mu.Lock()
	t.waiting = append(t.waiting, items...)
	lead := t.trips < mostTrips
	if lead {
		t.trips++
	}
	t.mu.Unlock()
	if lead {
		t.lead()
	}
}

// lead does what waits, and leaves what has come meanwhile to another goroutine.
func (t *trips[T]) lead() {
	runtime.Gosched() // lets others that are about to come do so first
	t.mu.Lock()
	items := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	if len(items) > 0 {
		t.do(items)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) > 0 {
		go t.lead()
	} else {
		t.trips--
	}
}
