// Package batcher gathers what many goroutines want of Redis at the same time, so that it goes in one round trip.
package batcher

import (
	"runtime"
	"sync"
)

// Batcher lets items of many goroutines share round trips. There is no timer in it: what is added while round trips
// are under way waits until one of them ends, and then goes together.
//
//	add 1      add 2, 3, 4      add 5
//	|- do(1) --------|- do(2, 3, 4) ----|- do(5) ...
type Batcher[T any] struct {
	do func([]T) // in one round trip

	mu       sync.Mutex
	waiting  []T
	underWay int // round trips
}

// mostTrips is how many round trips are under way at once: with one, few connections would wait for
// each other; with many, they would share none.
const mostTrips = 2

// New returns a Batcher. do is called with the items of one round trip, by a few goroutines at the same time.
func New[T any](do func([]T)) *Batcher[T] { return &Batcher[T]{do: do} }

// Add has items done, maybe before it returns.
func (b *Batcher[T]) Add(items ...T) {
	b.mu.Lock()
	b.waiting = append(b.waiting, items...)
	lead := b.underWay < mostTrips
	if lead {
		b.underWay++
	}
	b.mu.Unlock()
	if lead {
		b.lead()
	}
}

// lead does what waits, and leaves what has come meanwhile to another goroutine.
func (b *Batcher[T]) lead() {
	runtime.Gosched() // lets others that are about to come do so first
	b.mu.Lock()
	items := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	if len(items) > 0 {
		b.do(items)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 {
		go b.lead()
	} else {
		b.underWay--
	}
}
