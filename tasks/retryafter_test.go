package tasks

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// A backend may say when a message, or some of its recipients, may be tried again: Redis has the task for then.
func TestWorker_retryAfter(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"single": 1, "bulk": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: size})
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				later := &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepRcpt, Code: 429, Text: "slower", RetryAfter: time.Hour}
				if m.MessageID == "<0@t>" {
					return mailer.Result{Err: later}
				}
				later.Recipient = "late@example.com"
				return mailer.Result{Refused: []*mailer.SendError{later}}
			}
			outcomes := make(chan Outcome, 100)
			cfg := h.config()
			cfg.Observers = []Observer{{Outcome: func(o Outcome) { outcomes <- o }}}
			begin := time.Now()
			h.send(2, func(m *mailer.EmailMessage) { m.To = append(m.To, "late@example.com") })
			h.start(cfg)
			for range 2 {
				select {
				case o := <-outcomes:
					if o.Action == ActionRetry && (o.RetryIn < time.Hour || o.RetryIn > 66*time.Minute) {
						t.Errorf("tried again in %v, want an hour", o.RetryIn)
					}
				case <-t.Context().Done():
					t.Fatal("nothing came of it")
				}
			}
			inspector := asynq.NewInspectorFromRedisClient(h.Client(t))
			var waiting []*asynq.TaskInfo
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for len(waiting) < 2 {
				waiting = nil
				queues, err := inspector.Queues()
				if err != nil {
					t.Fatal(err)
				}
				for _, queue := range queues {
					for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){inspector.ListRetryTasks, inspector.ListScheduledTasks} {
						infos, err := list(queue)
						if err != nil {
							t.Fatal(err)
						}
						waiting = append(waiting, infos...)
					}
				}
				select {
				case <-tick.C:
				case <-t.Context().Done():
					t.Fatalf("%d tasks wait, want 2", len(waiting))
				}
			}
			for _, info := range waiting {
				// asynq counts in seconds.
				if in := info.NextProcessAt.Sub(begin); in < time.Hour-time.Second {
					t.Errorf("%s is tried again %v after it was handed over, want an hour", info.ID, in)
				}
			}
		})
	}
}

// A service that wants less keeps its mailer held for as long as it says, and no try is spent.
func TestHold_retryAfter(t *testing.T) {
	t.Parallel()
	const after = 3 * time.Second // a probe would come after one
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{MaxRetry: new(0)}})
	var mu sync.Mutex
	var asked []time.Time
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		mu.Lock()
		asked = append(asked, time.Now())
		first := len(asked) == 1
		mu.Unlock()
		if first {
			return mailer.Result{Err: &mailer.SendError{
				Class: mailer.Unavailable, Step: mailer.StepConnect, Code: 429, Text: "slower", RetryAfter: after,
			}}
		}
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.Connections = 1
	held := watch(&cfg)
	h.send(1, nil)
	h.start(cfg)
	select {
	case reason := <-held:
		if reason == nil {
			t.Error("held for no reason")
		}
	case <-t.Context().Done():
		t.Fatal("not held")
	}
	h.wait(1)
	h.empty()
	h.once(1)
	if pause := asked[1].Sub(asked[0]); pause < after {
		t.Errorf("probed after %v, want %v", pause, after)
	}
}
