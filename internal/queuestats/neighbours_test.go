package queuestats

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Other programs on the same Redis are named; our own mail and workers are not.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	enqueue := func(kind, queue string, opts ...asynq.Option) {
		t.Helper()
		c := asynq.NewClientFromRedisClient(client)
		if _, err := c.EnqueueContext(t.Context(), asynq.NewTask(kind, nil), append(opts, asynq.Queue(queue))...); err != nil {
			t.Fatal(err)
		}
	}
	serve := func(queues map[string]int) {
		t.Helper()
		s := asynq.NewServerFromRedisClient(client, asynq.Config{Concurrency: 1, Queues: queues, LogLevel: asynq.FatalLevel})
		if err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
	}
	// until looks until there are so many warnings: a server says in a goroutine of its own that it is there.
	until := func(n int) (w []string, err error) {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if w, err = Neighbours(t.Context(), client); err != nil || len(w) == n || time.Now().After(deadline) {
				return w, err
			}
		}
	}
	if w, err := Neighbours(t.Context(), client); err != nil || len(w) != 0 {
		t.Errorf("in an empty Redis: %q, %v", w, err)
	}
	enqueue(wire.TaskType, "default")
	enqueue(wire.TaskTypeBulk, "default:mass")
	if w, err := Neighbours(t.Context(), client); err != nil || len(w) != 0 {
		t.Errorf("with our own mail: %q, %v", w, err)
	}
	enqueue("report:make", "reports")
	enqueue("report:\x1bmake", "default", asynq.ProcessIn(time.Hour))
	w, err := Neighbours(t.Context(), client)
	if err != nil || len(w) != 1 || !strings.Contains(w[0], "in default (report:") || !strings.Contains(w[0], ", reports (report:make)") || strings.Contains(w[0], "\x1b") {
		t.Errorf("with tasks of another program: %q, %v", w, err)
	}
	serve(map[string]int{"elsewhere": 1, "other": 2})
	if w, err = until(2); err != nil || len(w) != 2 || !strings.Contains(w[0], "(elsewhere, other)") || !strings.Contains(w[0], "of its own") {
		t.Errorf("with a server of another program: %q, %v", w, err)
	}
	serve(map[string]int{"default:mass": 1}) // in the same process, so that is a worker
	if w, err = until(1); err != nil || len(w) != 1 {
		t.Errorf("with a worker: %q, %v", w, err)
	}
}
