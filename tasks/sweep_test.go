package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// What waits in Redis until its deadline is a dead letter, though no worker takes it: its queue is paused, as it is for
// a worker that is held. A bulk task is one letter, and is replayed as if it were handed over now.
func TestWorker_sweeps(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const queue, mass = "default", "default:mass"
	for _, name := range []string{queue, mass} {
		if err := inspect(t, h.Server).PauseQueue(name); err != nil {
			t.Fatal(err)
		}
	}
	const single, task = "single", "many"
	past := time.Now().Add(-time.Second)
	late := func(i int) *wire.Payload { // as a program had handed it over before its deadline
		m := message(fmt.Sprintf("u%d@example.com", i)).WithDefaults(mailer.Defaults{})
		m.MessageID = fmt.Sprintf("<%d@t>", i)
		return &wire.Payload{Meta: wire.Meta{DueAt: past.Add(-time.Minute), Deadline: &past}, Message: m}
	}
	if err := h.queue.client.Enqueue(t.Context(), late(3), single); err != nil {
		t.Fatal(err)
	}
	if err := h.queue.client.PutBulk(t.Context(), []*wire.Payload{late(0), late(1), late(2)}, task, asynq.Queue(mass)); err != nil {
		t.Fatal(err)
	}
	h.Client(t).HSet(t.Context(), asynqbatch.TaskKey(mass, task), wire.FieldSent+".1", `{"reply":"250 Ok"}`)

	var mu sync.Mutex
	var swept []Swept
	cfg := h.config()
	cfg.sweepEvery = 20 * time.Millisecond
	cfg.Observers = []Observer{{Swept: func(s Swept) {
		mu.Lock()
		defer mu.Unlock()
		swept = append(swept, s)
	}}}
	h.start(cfg)
	d := NewDeadLetters(h.Client(t))
	var one, many *DeadLetter
	h.eventually("two dead letters", func() bool {
		var err1, err2 error
		one, err1 = d.Get(queue, single)
		many, err2 = d.Get(mass, task)
		return err1 == nil && err2 == nil
	})
	if !strings.Contains(one.Reason, "not sent before its deadline") || one.Message == nil {
		t.Errorf("%+v", one)
	}
	if !strings.Contains(many.Reason, "not sent before its deadline") || many.Messages != 3 || !slices.Contains(many.Recipients, "u2@example.com") {
		t.Errorf("%+v", many)
	}
	h.eventually("they are reported", func() bool {
		mu.Lock()
		defer mu.Unlock()
		want := Swept{Queue: "default", Why: "expired", Tasks: 1}
		return len(swept) == 2 && swept[0] == want && swept[1] == want
	})

	for id, name := range map[string]string{single: queue, task: mass} {
		if _, err := d.Replay(t.Context(), name, id); err != nil {
			t.Error(err)
		}
		if _, err := d.Replay(t.Context(), name, id); !errors.Is(err, ErrNotDead) {
			t.Errorf("a second replay: %v", err)
		}
		// The sweep reads when it is due now, not when it was.
		heads, err := redis.NewScript(wire.LuaHeads+`return heads(redis.call("HGET", KEYS[1], "msg"))`).
			Run(t.Context(), h.Client(t), []string{asynqbatch.TaskKey(mass, task)}).Text()
		for line := range strings.Lines(heads) {
			if m, err := wire.DecodeHead(strings.TrimSpace(line)); name == mass && (err != nil || m.Deadline != nil) {
				t.Errorf("%s: %+v, %v", id, m, err)
			}
		}
		if name == mass && err != nil {
			t.Error(err)
		}
	}
	// Both at once: the worker takes them for one queue, and resumes the other one itself when it sees that one is.
	if err := h.Client(t).Del(t.Context(), asynqbatch.PausedKey(queue), asynqbatch.PausedKey(mass)).Err(); err != nil {
		t.Fatal(err)
	}
	h.wait(3)
	h.allEmpty()
	if got := h.relay.ids(); got["<0@t>"] != 1 || got["<1@t>"] != 0 || got["<2@t>"] != 1 || got["<3@t>"] != 1 {
		t.Errorf("delivered %v, want all but the one that had been sent", got)
	}
}

// A dead letter of a sweep says what its mail was waiting for.
func TestWorker_expiredInRedis(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Mailers, cfg.MaxAge = map[string]int{"alerts": 1}, time.Hour
	cfg.Queues = map[string]int{"default": 1, "critical": 2}
	w, err := NewWorker(h.Client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for queue, want := range map[string]bool{
		"default": true, "critical": true, "alerts.default": true, "alerts.default:mass~2": true, "default~7": true, "bulk": false, "others.default": false,
	} {
		if got := w.inRedis().serves(queue); got != want {
			t.Errorf("serves(%q) = %v", queue, got)
		}
	}
	w.dispatchers["alerts"].breaker.trip(errors.New("its relay is away"), false, 0)
	defer w.dispatchers["alerts"].breaker.stop()
	now := time.Now()
	past, future := now.Add(-time.Second), now.Add(time.Second)
	for _, tt := range []struct {
		meta wire.Meta
		want string
	}{
		{wire.Meta{DueAt: now}, ""},
		{wire.Meta{DueAt: future}, ""},
		{wire.Meta{DueAt: now, Deadline: &future}, ""},
		{wire.Meta{DueAt: now, Deadline: &past}, "not sent before its deadline"},
		{wire.Meta{DueAt: now.Add(-2 * time.Hour)}, "not sent within 1h0m0s (EMAIL_MAX_AGE)"},
		{wire.Meta{DueAt: now.Add(-2 * time.Hour), Using: "alerts"}, "(EMAIL_MAX_AGE): its relay is away"},
		{wire.Meta{DueAt: now, Refused: "550 no"}, "550 no"},
	} {
		reason := ""
		if err := w.inRedis().expired("", tt.meta, now); err != nil {
			reason = err.Error()
		}
		if !strings.Contains(reason, tt.want) || (reason == "") != (tt.want == "") {
			t.Errorf("%+v: %q, want %q", tt.meta, reason, tt.want)
		}
	}
}

// While a worker takes mail that is about to expire, each message ends once: sent, or a dead letter.
func TestWorker_sweepsBeside(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var letters []*mailer.EmailMessage
	for i := range 3000 {
		letters = append(letters, message(fmt.Sprintf("u%d@example.com", i)))
		letters[i].MessageID = fmt.Sprintf("<%d@t>", i)
	}
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{Deadline: time.Now().Add(2 * time.Second)}})
	n, err := h.queue.SendMessages(t.Context(), letters) // on a slow machine some come too late
	if n == 0 {
		t.Fatal(err)
	}
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		<-time.After(3 * time.Millisecond)
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.sweepEvery = time.Millisecond
	h.start(cfg)
	h.start(cfg)
	d := NewDeadLetters(h.Client(t))
	h.eventually("all have ended", func() bool {
		i := h.info()
		return i.Pending+i.Active+i.Retry+i.Scheduled == 0
	})
	dead, err := d.Count(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	ids := h.relay.ids()
	for id, count := range ids {
		if count != 1 {
			t.Errorf("%s was sent %d times", id, count)
		}
	}
	t.Logf("%d sent, %d dead letters", len(ids), dead)
	if len(ids)+dead != n {
		t.Errorf("%d sent and %d dead letters of %d", len(ids), dead, n)
	}
}
