package asynqbatch

import (
	"context"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// A task whose lease is over is recovered once, and one whose lease is not is left alone. Who has a task
// in hand gives it back without that.
func TestMove_recover(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	b := newBroker(client, 1, nil)
	script := redis.NewScript("return 'asynq has not been asked'")
	tests := []struct {
		name  string
		lease time.Duration // from now
		limit bool          // the caller has the task
		list  string
		moved bool
	}{
		{"over", -time.Minute, false, "retry", true},
		{"over, tries used up", -time.Minute, false, "archived", true},
		{"just over", -10 * time.Second, false, "retry", false},
		{"given out again", 30 * time.Second, false, "retry", false},
		{"in hand", 30 * time.Second, true, "retry", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queue := "asynq:{" + tt.name + "}:"
			keys := []string{queue + "t:X", queue + "active", queue + "lease", queue + tt.list, "a", "b", "c", "d"}
			args := []any{"X", "message", time.Now().Unix(), time.Now().Add(time.Hour).Unix(), false, int64(9)}
			if tt.list == "archived" {
				keys, args = append(keys, queue+"t:"), []any{"X", "message", time.Now().Unix(), 0, 10, time.Now().Add(time.Hour).Unix(), int64(9)}
			}
			ctx := context.Background() //nolint:usetesting // as asynq has it: without a deadline
			if tt.limit {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Minute)
				defer cancel()
			}
			times := 0
			for range 2 {
				client.LPush(ctx, keys[1], "X")
				client.HSet(ctx, keys[0], "msg", "message", "state", "active")
				if times == 0 {
					client.ZAdd(ctx, keys[2], redis.Z{Score: float64(time.Now().Add(tt.lease).Unix()), Member: "X"})
				}
				if err := script.Run(ctx, b, keys, args...).Err(); err != nil {
					t.Fatal(err)
				}
				if client.LLen(ctx, keys[1]).Val() == 0 {
					times++
				}
				client.Del(ctx, keys[1])
			}
			want := 0
			if tt.moved {
				want = 1
			}
			if tt.limit {
				want = 2
			}
			if times != want {
				t.Errorf("the task was moved %d times, want %d", times, want)
			}
			if n := client.ZCard(ctx, keys[3]).Val(); (n == 1) != tt.moved {
				t.Errorf("%d tasks in the list %s", n, tt.list)
			}
		})
	}
}

// asynq's script that recovers a task is known by its keys, and those may change.
func TestMove_recoverKnown(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.enqueue(t, "default", 1, 1)
	s.fetchOne(t, "default")
	s.redis.ZAdd(t.Context(), "asynq:{default}:lease", redis.Z{Score: float64(time.Now().Add(-time.Hour).Unix()), Member: "1"})
	lost := make(chan int, 1)
	c := New(s.redis, Config{LostField: "test:lost", OwnerField: "test:owner", Fetched: func(_ string, n int) { lost <- n }})
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
