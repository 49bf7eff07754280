package tasks

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/redis/go-redis/v9"
)

// counter counts the scripts that take a task, by queue.
type counter struct {
	redis.UniversalClient
	taken map[string]int
	err   error
}

func (c *counter) EvalSha(_ context.Context, _ string, keys []string, _ ...any) *redis.Cmd {
	c.taken[keys[0]]++
	return redis.NewCmdResult(nil, c.err)
}

// An empty queue is not asked again at once, and after a moment it is.
func TestBroker_emptyQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &counter{taken: map[string]int{}, err: redis.Nil}
		b := newBroker(client, newEndings())
		keys := []string{"asynq:{bulk}:pending", "asynq:{bulk}:paused", "asynq:{bulk}:active", "asynq:{bulk}:lease"}
		ask := func() error { return b.EvalSha(t.Context(), "sha", keys, 1).Err() }
		for range 10 {
			if err := ask(); err != redis.Nil { //nolint:errorlint // as asynq compares it
				t.Fatalf("an empty queue: %v", err)
			}
		}
		if n := client.taken[keys[0]]; n != 1 {
			t.Errorf("asked %d times in no time, want once", n)
		}
		wait := context.WithoutCancel(t.Context())
		wait, cancel := context.WithTimeout(wait, emptyFor)
		defer cancel()
		<-wait.Done()
		client.err = nil
		for range 3 {
			if err := ask(); err != nil {
				t.Fatal(err)
			}
		}
		if n := client.taken[keys[0]]; n != 4 {
			t.Errorf("asked %d times in all, want 4: a queue that has tasks is asked each time", n)
		}
	})
}
