package pages

import (
	"context"
	"sync"
	"time"
)

const (
	fresh    = 900 * time.Millisecond // how long an answer of Redis serves everybody who asks
	patience = time.Second            // and how long it may take
)

// cached asks Redis for all who want to know, so that many of them cost it no more than
// one does.
type cached[T any] struct {
	read func(context.Context) (T, error)

	mu    sync.Mutex
	at    time.Time
	value T
	err   error
}

// get returns an answer that is fresh. Who waits for it gets the same one.
func (c *cached[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < fresh {
		return c.value, c.err
	}
	// It is for the others too, so it does not end with the one who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	c.value, c.err = c.read(ctx)
	c.at = time.Now()
	return c.value, c.err
}
