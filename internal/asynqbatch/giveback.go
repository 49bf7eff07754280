package asynqbatch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

// claims are the tasks that asynq was given, by their keys.
type claims struct {
	mu    sync.Mutex
	tasks map[string]fetched
	order map[string]uint64
	back  map[string]int // were given back, and asynq does not know yet
	n     uint64
}

func newClaims() *claims {
	return &claims{tasks: map[string]fetched{}, order: map[string]uint64{}, back: map[string]int{}}
}

func (c *claims) add(t fetched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.tasks[t.key()], c.order[t.key()] = t, c.n
}

// settled reports whether asynq ends a task that was given back.
func (c *claims) settled(keys []string) bool {
	if len(keys) != 8 || !strings.HasSuffix(keys[3], "}:retry") {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.back[keys[0]] == 0 {
		return false
	}
	if c.back[keys[0]]--; c.back[keys[0]] == 0 {
		delete(c.back, keys[0])
	}
	return true
}

// GiveBack puts tasks back that nobody has begun, at the head of their queues in the order in which they were
// fetched. That costs them no try and no lease. Their handlers are to return then, with an error, which asynq hears and
// Redis does not.
func (c *Client) GiveBack(ctx context.Context, keys []string) error {
	c.claims.mu.Lock()
	slices.SortFunc(keys, func(a, b string) int { return int(c.claims.order[b]) - int(c.claims.order[a]) }) //nolint:gosec // few
	tasks := make([]fetched, 0, len(keys))
	for _, key := range keys {
		if t, ok := c.claims.tasks[key]; ok {
			tasks = append(tasks, t)
			delete(c.claims.tasks, key)
		}
	}
	c.claims.mu.Unlock()
	var errs []error
	for _, t := range tasks {
		n, err := giveBackScript.Run(ctx, c.redis, t.keys, t.lease, t.prefix, t.id).Int()
		errs = append(errs, err)
		if n == 1 {
			c.claims.mu.Lock()
			c.claims.back[t.key()]++
			c.claims.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}
