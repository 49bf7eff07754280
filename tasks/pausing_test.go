package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// barrier is a relay's answer that waits: for each message until open is called.
type barrier struct {
	come chan struct{} // gets a token for each message that is on the wire
	free chan struct{}
	open func()
}

func newBarrier() *barrier {
	g := &barrier{come: make(chan struct{}, 100_000), free: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.free) })
	return g
}

func (g *barrier) answer(context.Context, *mailer.EmailMessage) mailer.Result {
	g.come <- struct{}{}
	<-g.free
	return mailer.Result{}
}

// wires is how many messages are marked as on the wire, in all queues.
func (h *house) wires() int {
	h.t.Helper()
	client, n := h.Client(h.t), 0
	for _, key := range client.Keys(h.t.Context(), "asynq:*:t:*").Val() {
		for _, field := range client.HKeys(h.t.Context(), key).Val() {
			if strings.HasPrefix(field, wire.FieldWire) {
				n++
			}
		}
	}
	return n
}

// aside are the IDs of what was set aside of a mailing in a queue, first what came first.
func (h *house) aside(queue, mailing string) []string {
	return h.Client(h.t).ZRange(h.t.Context(), wire.AsideKey(queue, mailing), 0, -1).Val()
}

func (h *house) pause(what PauseTarget) {
	h.t.Helper()
	before, err := NewPauses(h.Client(h.t)).Pause(h.t.Context(), Pause{Target: what, Reason: "a test"})
	if err != nil || before != nil {
		h.t.Fatalf("Pause = %v, %v", before, err)
	}
}

func (h *house) resume(what PauseTarget) {
	h.t.Helper()
	if ended, err := NewPauses(h.Client(h.t)).Resume(h.t.Context(), what); err != nil || !ended {
		h.t.Fatalf("Resume = %v, %v", ended, err)
	}
}

// While 1,000 messages are in the hands of two workers they are paused. What is on the wire is sent, and nothing else; all of
// it waits in its order, and is delivered once when it goes on. A message that is not paused is sent meanwhile.
func TestPause_inHand(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		what    PauseTarget
		other   Options // of a message that is not paused
		mailing string
		bulk    int
	}{
		"queue":           {PauseTarget{Queue: "bulk"}, Options{}, "", 100},
		"queue, single":   {PauseTarget{Queue: "bulk"}, Options{}, "", 1},
		"mailer":          {PauseTarget{Mailer: "marketing"}, Options{}, "", 100},
		"queue of one":    {PauseTarget{Queue: "bulk", Mailer: "marketing"}, Options{Queue: "bulk"}, "", 100},
		"mailing":         {PauseTarget{Mailing: "july"}, Options{Queue: "bulk", Using: "marketing", Mailing: "august"}, "july", 100},
		"mailing, single": {PauseTarget{Mailing: "july"}, Options{Queue: "bulk", Using: "marketing"}, "july", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			gate := newBarrier()
			t.Cleanup(gate.open)
			h.relay.answer = gate.answer
			h.queue = NewQueue(h.Client(t), QueueConfig{
				BulkSize: tt.bulk, Mailers: []string{"marketing"}, Options: Options{Queue: "bulk", Using: "marketing", Mailing: "july"},
			})
			h.send(1000, nil)
			queue := "marketing.bulk"
			if tt.bulk > 1 {
				queue = "marketing.bulk:mass"
			}
			order := h.pending(queue)
			cfg := h.config()
			cfg.Mailers, cfg.Queues, cfg.Concurrency = map[string]int{"marketing": 2}, map[string]int{"default": 3, "bulk": 1}, 600
			stopOne, stopTwo := h.start(cfg), h.start(cfg)
			for range 4 { // as many as there are connections
				<-gate.come
			}
			h.eventually("the workers have all", func() bool { return len(h.pending(queue)) == 0 })
			onWire := h.wires()
			if onWire != 4 {
				t.Fatalf("%d messages are marked, want 4", onWire)
			}
			begin := time.Now()
			h.pause(tt.what)
			client := h.Client(t)
			// Those whose messages are on the wire stay: in a mass task one or two for each connection.
			h.eventually("what is not on the wire is back", func() bool {
				return client.LLen(t.Context(), "asynq:{"+queue+"}:active").Val() <= 4
			})
			t.Logf("back after %v", time.Since(begin).Round(time.Millisecond))
			gate.open()
			h.eventually("what was on the wire has ended", func() bool { return client.LLen(t.Context(), "asynq:{"+queue+"}:active").Val() == 0 })
			left := len(order)
			if tt.bulk == 1 {
				left -= onWire
			}
			back := func() []string {
				if tt.mailing != "" {
					return h.aside(queue, tt.mailing)
				}
				return h.pending(queue)
			}
			h.eventually("all is back", func() bool { return len(back()) == left })
			h.wait(onWire)
			if n := h.wires(); tt.bulk == 1 && n != 0 {
				t.Errorf("%d messages that wait are marked", n)
			}
			NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}, Options: tt.other}).mustEnqueue(h, "<other@t>")
			h.wait(1)
			if got := len(h.relay.ids()); got != onWire+1 {
				t.Errorf("%d messages were sent though they were paused", got-onWire-1)
			}
			h.inOrder("what waits", back(), order)
			stopOne()
			stopTwo()
			h.resume(tt.what)
			if got := h.pending(queue); len(got) != left {
				t.Errorf("%d tasks came back, want %d", len(got), left)
			}
			h.inOrder("what came back", h.pending(queue), order)
			h.start(cfg)
			h.wait(1000 - onWire)
			h.allEmpty()
			h.once(1001)
			if keys := client.Keys(t.Context(), "*paus*").Val(); len(keys) > 0 {
				t.Errorf("left behind: %s", keys)
			}
			if keys := client.Keys(t.Context(), "*aside*").Val(); len(keys) > 0 {
				t.Errorf("left behind: %s", keys)
			}
		})
	}
}

// mustEnqueue hands one message over.
func (q *Queue) mustEnqueue(h *house, messageID string) {
	h.t.Helper()
	m := message("ann@example.com")
	m.MessageID = messageID
	if _, err := q.Enqueue(h.t.Context(), m); err != nil {
		h.t.Fatal(err)
	}
}

// inOrder checks that some are in the order in which they are in all.
func (h *house) inOrder(what string, some, all []string) {
	h.t.Helper()
	last := -1
	for n, id := range some {
		i := slices.Index(all, id)
		if i <= last {
			h.t.Errorf("%s is in another order: number %d was number %d, and the one before number %d", what, n, i, last)
			return
		}
		last = i
	}
}

// All parts of a queue are paused as one of them, whoever pauses it with what, and go on so.
func TestPause_parts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Mailers, cfg.Queues, cfg.Shards = map[string]int{"marketing": 1}, map[string]int{"default": 1, "bulk": 1}, 2
	h.start(cfg)
	client, ctx := h.Client(t), t.Context()
	isPaused := func(queue string) bool { return client.Exists(ctx, "asynq:{"+queue+"}:paused").Val() == 1 }
	own := []string{"bulk", "bulk~1", "bulk~2", "bulk:mass", "bulk:mass~1", "bulk:mass~2"}
	others := []string{"marketing.bulk", "marketing.bulk:mass", "marketing.bulk:mass~2"}
	all := func(want bool, queues ...string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(queues, func(queue string) bool { return isPaused(queue) != want })
		}
	}
	h.eventually("the queues", func() bool { return client.SCard(ctx, wire.QueuesKey).Val() == 24 })
	tools := inspect(t, h.Server)

	// asynq's tools know one part.
	if err := tools.PauseQueue("bulk:mass~1"); err != nil {
		t.Fatal(err)
	}
	h.eventually("all parts are paused", all(true, own...))
	if !all(false, append(others, "default", "default:mass")...)() {
		t.Error("another mailer's queue, or another queue, is paused")
	}
	list, err := NewPauses(client).List(ctx)
	if err != nil || len(list) != 1 || list[0].Target != (PauseTarget{Queue: "bulk", Mailer: "default"}) || list[0].By != "asynq's tools" {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := tools.UnpauseQueue("bulk"); err != nil {
		t.Fatal(err)
	}
	h.eventually("no part is paused", all(false, own...))
	if list, err := NewPauses(client).List(ctx); err != nil || len(list) != 0 {
		t.Errorf("List = %+v, %v", list, err)
	}

	// Ours knows all, and two of them stand beside each other.
	h.pause(PauseTarget{Queue: "bulk"})
	if !all(true, append(own, others...)...)() {
		t.Error("some part is not paused")
	}
	h.pause(PauseTarget{Mailer: "marketing"})
	h.resume(PauseTarget{Queue: "bulk"})
	if !all(true, append(others, "marketing.default")...)() {
		t.Error("more than what was resumed goes on")
	}
	// A look of the worker that began before may pause it once more, until its next one.
	h.eventually("what was resumed goes on", all(false, own...))
	// A mailer is more than what the tools know.
	if err := tools.UnpauseQueue("marketing.bulk"); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is paused again", all(true, others...))
	h.resume(PauseTarget{Mailer: "marketing"})
	h.eventually("no part is paused", all(false, append(own, others...)...))

	// A part that is new is paused too.
	h.pause(PauseTarget{Queue: "bulk"})
	client.SAdd(ctx, wire.QueuesKey, "bulk~3")
	client.Del(ctx, "asynq:{bulk~2}:paused", wire.PausesKey("bulk~2"))
	h.eventually("the new part is paused", all(true, "bulk~2"))

	var unknown *UnknownTargetError
	if _, err := NewPauses(client).Pause(ctx, Pause{Target: PauseTarget{Queue: "bluk"}}); !errors.As(err, &unknown) || !slices.Contains(unknown.Known, "bulk") {
		t.Errorf("a queue that there is none of: %v", err)
	}
	for _, bad := range []PauseTarget{{}, {Queue: "a b"}, {Mailing: "x", Queue: "bulk"}} {
		if _, err := NewPauses(client).Pause(ctx, Pause{Target: bad}); err == nil {
			t.Errorf("%+v was paused", bad)
		}
	}
	before, err := NewPauses(client).Pause(ctx, Pause{Target: PauseTarget{Queue: "bulk"}, Reason: "another"})
	if err != nil || before == nil || before.Reason != "a test" {
		t.Errorf("Pause of what is paused = %+v, %v", before, err)
	}
}

// A record that somebody has deleted while a worker has its task is not sent. One that Redis has forgotten is.
func TestWorker_deletedInHand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lose func(ctx context.Context, client *redis.Client, id string)
		want int
	}{
		"deleted":   {func(ctx context.Context, client *redis.Client, id string) { client.Del(ctx, "asynq:{default}:t:"+id) }, 1},
		"forgotten": {func(ctx context.Context, client *redis.Client, _ string) { client.FlushAll(ctx) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.handOver("0", Options{})
			release := h.blocked()
			defer release()
			id := h.handOver("1", Options{})
			h.eventually("the worker has both", func() bool { return h.info().Active == 2 })
			tt.lose(t.Context(), h.Client(t), id)
			release()
			h.wait(tt.want)
			h.eventually("nothing is in hand", func() bool {
				return h.Client(t).Exists(t.Context(), "asynq:{default}:active", "asynq:{default}:lease").Val() == 0
			})
			h.once(tt.want)
		})
	}
}
