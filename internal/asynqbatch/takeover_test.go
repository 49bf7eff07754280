package asynqbatch

import (
	"context"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// A lease that is over is taken over once, and one that is not is left alone. Who has a task
// in hand gives it back without that.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	b := newBroker(client, 1, nil)
	script := redis.NewScript(`return redis.call("HINCRBY", KEYS[1], "runs", 1)`)
	tests := []struct {
		name  string
		lease time.Duration // from now
		limit bool          // the caller has the task
		list  string
		runs  int
	}{
		{"over", -time.Minute, false, "retry", 1},
		{"over, tries used up", -time.Minute, false, "archived", 1},
		{"just over", -10 * time.Second, false, "retry", 0},
		{"given out again", 30 * time.Second, false, "retry", 0},
		{"in hand", 30 * time.Second, true, "retry", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queue := "asynq:{" + tt.name + "}:"
			keys := []string{queue + "t:X", queue + "active", queue + "lease", queue + tt.list}
			client.ZAdd(t.Context(), keys[2], redis.Z{Score: float64(time.Now().Add(tt.lease).Unix()), Member: "X"})
			ctx := context.Background() //nolint:usetesting // as asynq has it: without a deadline
			if tt.limit {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Minute)
				defer cancel()
			}
			for range 2 {
				if err := script.Run(ctx, b, keys, "X").Err(); err != nil {
					t.Fatal(err)
				}
			}
			if got, _ := client.HGet(t.Context(), keys[0], "runs").Int(); got != tt.runs {
				t.Errorf("the task was given back %d times, want %d", got, tt.runs)
			}
		})
	}
}

// asynq's script that recovers a task is known by its keys, and those may change.
func TestTakeOver_known(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.enqueue(t, "default", 1, 1)
	s.fetchOne(t, "default")
	s.redis.ZAdd(t.Context(), "asynq:{default}:lease", redis.Z{Score: float64(time.Now().Add(-time.Hour).Unix()), Member: "1"})
	lost := make(chan int, 1)
	c := New(s.redis, Config{LostField: "test:lost", Fetched: func(_ string, n int) { lost <- n }})
	server := c.NewServer(ServerConfig{Config: asynq.Config{
		Concurrency: 1, LogLevel: asynq.FatalLevel, DelayedTaskCheckInterval: 10 * time.Millisecond, TaskCheckInterval: 10 * time.Millisecond,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return 0 },
	}})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	defer server.Stop()
	select {
	case n := <-lost:
		if n != 1 {
			t.Errorf("%d lost leases, want 1", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("the task was not recovered")
	}
}
