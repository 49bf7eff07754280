package asynqbatch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// A handler has a task for as long as it needs, whatever the program that enqueued it
// says; the task's own time-out is in Redis afterwards as before, also if Redis had to be sent the script.
func TestTimeout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts []asynq.Option
		want time.Duration // in Redis, after a retry
	}{
		"short":    {[]asynq.Option{asynq.Timeout(time.Second)}, time.Second},
		"over":     {[]asynq.Option{asynq.Deadline(time.Now().Add(-time.Hour))}, 30 * time.Minute},
		"both":     {[]asynq.Option{asynq.Timeout(5 * time.Minute), asynq.Deadline(time.Now().Add(time.Second))}, 5 * time.Minute},
		"asynq's":  {nil, 30 * time.Minute},
		"for ever": {[]asynq.Option{asynq.Timeout(200 * 365 * 24 * time.Hour)}, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Start(t, redistest.Options{}).Client(t)
			task := asynq.NewTaskWithHeaders("test", []byte(strings.Repeat(name, 50)), map[string]string{"a": "b"})
			info, err := asynq.NewClientFromRedisClient(client).Enqueue(task, append(c.opts, asynq.MaxRetry(3))...)
			if err != nil {
				t.Fatal(err)
			}
			own := make(chan time.Duration, 1)
			s := New(client, Config{LostField: "test:lost"}).NewServer(ServerConfig{Config: asynq.Config{
				Concurrency: 1, TaskCheckInterval: 10 * time.Millisecond,
				RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Hour },
			}})
			err = s.Start(asynq.HandlerFunc(func(ctx context.Context, got *asynq.Task) error {
				if string(got.Payload()) != string(task.Payload()) || got.Headers()["a"] != "b" {
					t.Errorf("the handler got %q with %v", got.Payload(), got.Headers())
				}
				own <- Timeout(ctx, time.Now())
				select {
				case <-ctx.Done():
					t.Errorf("the task was taken away: %v", ctx.Err())
				case <-time.After(1500 * time.Millisecond):
				}
				return errors.New("later")
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown()
			got := <-own
			if late := c.want - got; late < 0 || late > time.Minute { // it counts from when asynq has the task
				t.Errorf("Timeout = %v, want %v", got, c.want)
			}
			inspector := asynq.NewInspectorFromRedisClient(client)
			for {
				got, err := inspector.GetTaskInfo("default", info.ID)
				if err != nil {
					t.Fatal(err)
				}
				if got.State != asynq.TaskStateRetry {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if got.Timeout != c.want || got.LastErr != "later" || got.Retried != 1 || string(got.Payload) != string(task.Payload()) {
					t.Errorf("in Redis: time-out %v, %q, %d retries, payload %q", got.Timeout, got.LastErr, got.Retried, got.Payload)
				}
				return
			}
		})
	}
}

// What cannot be read stays as it is, and what asynq does not know stays there.
func TestWithoutTimeout(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"\x0a", "\x0a\x05ab", "\x0d1234", strings.Repeat("\xff", 20)} {
		if got := withoutTimeout(broken); got != broken {
			t.Errorf("%q became %q", broken, got)
		}
	}
	const task = "\x0a\x04test\x40\x05\x48\x64\xa2\x06\x03new" // field 100 follows the time-out and the deadline
	got := withoutTimeout(task)
	args := []any{"id", []byte(got)}
	back, _ := withTimeouts([]string{"asynq:{q}:t:id"}, args)[1].([]byte)
	timeout, _ := timeoutOf(got)
	again, _ := timeoutOf(string(back))
	if timeout != neverSeconds+5 || again != 5 || !strings.HasPrefix(got, task) || !strings.HasSuffix(string(back), "\x48\x00\x40\x05") {
		t.Errorf("%q, then %q", got, back)
	}
	if unchanged, _ := args[1].([]byte); string(unchanged) != got {
		t.Error("asynq's own arguments were changed")
	}
	if same := withTimeouts([]string{"asynq:servers"}, args); string(same[1].([]byte)) != got { //nolint:forcetypeassert // as above
		t.Error("a script that is not about a task was changed")
	}
}
