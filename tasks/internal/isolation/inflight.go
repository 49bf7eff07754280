package isolation

import (
	"context"
	"sync"
)

// InFlight knows which tasks this worker has, and keeps two handlers from having the
// same one. asynq may give a task out again while its message is still on the wire: after
// a failover to a replica that has not heard that it was given out, or when its lease ran out
// while Redis was away. The second handler waits for the first, and then finds in the
// ledger's memory what became of the message. The zero value is ready for use.
type InFlight struct {
	mu    sync.Mutex
	tasks map[string]chan struct{} // by task key; closed when the handler has ended
}

// Take waits until no other handler has the task. It is false if ctx ended first;
// otherwise release must be called.
func (h *InFlight) Take(ctx context.Context, key string) (release func(), ok bool) {
	for {
		other := h.enter(key)
		if other == nil {
			return func() { h.leave(key) }, true
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// enter returns nil if the task is now ours, else what to wait for.
func (h *InFlight) enter(key string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, ok := h.tasks[key]; ok {
		return other
	}
	if h.tasks == nil {
		h.tasks = map[string]chan struct{}{}
	}
	h.tasks[key] = make(chan struct{})
	return nil
}

// Len is how many tasks the worker has in hand.
func (h *InFlight) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tasks)
}

func (h *InFlight) leave(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.tasks[key])
	delete(h.tasks, key)
}
