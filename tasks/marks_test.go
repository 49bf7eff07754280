package tasks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
	"github.com/mailpouch/mailpouch/tasks/internal/letters"
)

// window is a worker's sender and a backend that has so many messages under way at once.
type window struct {
	m     *marks
	size  int
	trips int // round trips for marks alone
	doubt int // marked and not reported, at most
}

func (w *window) mark(list []*delivery) {
	for _, d := range list {
		d.marked = true
	}
	n := 0
	for i, d := range w.m.deliveries {
		if d.marked && !w.m.reported[i] {
			n++
		}
	}
	w.doubt = max(w.doubt, n)
}

// batch sends a batch whose first messages are marked.
func (w *window) batch(n, marked int) {
	deliveries := make([]*delivery, n)
	for i := range deliveries {
		deliveries[i] = &delivery{}
	}
	w.m, w.trips, w.doubt = newMarks(deliveries), 0, 0
	w.mark(deliveries[:min(marked, n)])
	reported := 0
	for i := range n {
		if i-reported == w.size { // as many as the server answers together
			group := make([]mailer.Report, (w.size+1)/2)
			for k := range group {
				group[k].Index = reported + k
			}
			reported += len(group)
			w.mark(w.m.after(group))
		}
		if !deliveries[i].marked {
			w.trips++
			w.mark(w.m.from(i))
		}
		w.m.commit(i)
	}
}

// Messages are marked as late as can be, and with the report of others: one ahead where one is under way, and no more than are
// under way where there are several. What a backend has under way is found out within few round trips, and known then.
func TestMarks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ size, trips, doubt int }{{1, 0, 1}, {2, 1, 2}, {16, 4, 16}, {100, 7, 100}} {
		w := &window{size: tt.size}
		for n, first := range []int{1, 0} {
			if n == 1 {
				first = w.m.most
			}
			w.batch(100, first)
			trips := tt.trips
			if n == 1 {
				trips = 0
			}
			if w.trips > trips || w.doubt > tt.doubt || w.m.most != tt.size {
				t.Errorf("batch %d, %d under way: %d round trips, want %d at most; %d in doubt, want %d at most; seen %d", n, tt.size, w.trips, trips, w.doubt, tt.doubt, w.m.most)
			}
		}
		w.size = 1 // the next connection knows no CHUNKING
		if w.batch(100, w.m.most); w.trips != 0 || w.m.most != 1 {
			t.Errorf("after %d under way: %d round trips, seen %d", tt.size, w.trips, w.m.most)
		}
	}
}

// gate is a relay that lets a message wait until the test says so.
type gate struct {
	at      string // Message-ID
	reached chan struct{}
	goOn    chan struct{}
	once    sync.Once
}

func newGate(at string) *gate {
	return &gate{at: at, reached: make(chan struct{}), goOn: make(chan struct{})}
}

func (g *gate) answer(_ context.Context, m *mailer.EmailMessage) mailer.Result {
	if m.MessageID == g.at {
		g.once.Do(func() {
			close(g.reached)
			<-g.goOn
		})
	}
	return mailer.Result{}
}

// A message of a slow batch can be cancelled until right before it is sent, in a task of its own and in one of many.
func TestCancel_inBatch(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"single": 1, "bulk": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: size})
			ids := map[string]string{} // of tasks, by Message-IDs
			messages := make([]*mailer.EmailMessage, 100)
			for i := range messages {
				messages[i] = mail(fmt.Sprint(i))
			}
			h.queue.SendBatch(t.Context(), mailer.Batch{Messages: messages, Report: func(group []mailer.Report) {
				for _, r := range group {
					if r.Err != nil {
						t.Error(r.Err)
					}
					ids[messages[r.Index].MessageID] = r.Reply
				}
			}})
			g := newGate("<50@t>")
			h.relay.answer = g.answer
			cfg := h.config()
			cfg.Connections, cfg.Concurrency = 1, 100
			stop := h.start(cfg)
			<-g.reached
			if err := h.queue.Cancel(t.Context(), ids[g.at]); !errors.Is(err, ErrTooLate) {
				t.Errorf("the message on the wire: %v, want %v", err, ErrTooLate)
			}
			sent := h.relay.ids() // a handler each, so that they are sent in about their order
			sent[g.at] = 1
			for _, m := range messages {
				if sent[m.MessageID] == 1 || m.MessageID == "<99@t>" {
					continue
				}
				if err := h.queue.Cancel(t.Context(), ids[m.MessageID]); err != nil {
					t.Errorf("%s is not on the wire: %v", m.MessageID, err)
				}
			}
			sent["<99@t>"] = 1
			close(g.goOn)
			h.wait(len(sent))
			h.eventually("nothing is left", func() bool { return len(h.Client(t).Keys(t.Context(), "asynq:*:t:*").Val()) == 0 })
			stop()
			if got := h.relay.ids(); !maps.Equal(got, sent) {
				t.Errorf("delivered were %v, want %v", got, sent)
			}
		})
	}
}

// A machine sleeps in the middle of a batch, which the process notices by its clock alone. What another worker has by then
// is dropped from the batch and left alone, in Redis too; what nobody has taken goes on.
func TestSuspend_midBatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		size  int
		taken bool // by another worker, meanwhile
		ended bool // and it is done with them
	}{
		{"nobody came, single", 1, false, false},
		{"nobody came, bulk", 100, false, false},
		{"taken over, single", 1, true, false},
		{"taken over, bulk", 100, true, false},
		{"taken over and done, single", 1, true, true},
		{"taken over and done, bulk", 100, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			client := h.Client(t)
			h.queue = NewQueue(client, QueueConfig{BulkSize: tt.size})
			messages := make([]*mailer.EmailMessage, 60)
			for i := range messages {
				messages[i] = mail(fmt.Sprint(i))
			}
			if n, err := h.queue.SendMessages(t.Context(), messages); n != len(messages) {
				t.Fatal(err)
			}
			g := newGate("<20@t>")
			h.relay.answer = g.answer
			var slept atomic.Int64
			start := time.Now()
			cfg := h.config()
			cfg.Connections, cfg.Concurrency = 1, 100
			cfg.clock = func() time.Duration { return time.Since(start) + time.Duration(slept.Load()) }
			stop := h.start(cfg)
			<-g.reached
			h.eventually("the worker has all", func() bool { return len(h.pending("default")) == 0 })
			sent := len(messages)
			if tt.taken {
				sent = len(h.relay.all()) + 1 // with the one that is on the wire
			}
			slept.Store(int64(80 * time.Second))
			keys := client.Keys(t.Context(), "asynq:*:t:*").Val()
			for _, key := range keys {
				switch {
				case tt.ended:
					queue, id, _ := strings.Cut(key, ":t:")
					client.Del(t.Context(), key)
					client.LRem(t.Context(), queue+":active", 0, id)
					client.ZRem(t.Context(), queue+":lease", id)
				case tt.taken:
					client.HSet(t.Context(), key, wire.FieldOwner, "another")
				}
			}
			close(g.goOn)
			h.wait(sent)
			if !tt.taken {
				h.eventually("nothing is left", func() bool { return len(h.Client(t).Keys(t.Context(), "asynq:*:t:*").Val()) == 0 })
			}
			stop()
			if all := h.relay.all(); len(all) != sent {
				t.Errorf("%d messages sent, want %d", len(all), sent)
			}
			h.once(sent)
			left := client.Keys(t.Context(), "asynq:*:t:*").Val()
			if tt.ended && len(left) > 0 {
				t.Errorf("records are there again: %v", left)
			}
			if !tt.taken || tt.ended {
				return
			}
			for _, key := range keys {
				fields := client.HGetAll(t.Context(), key).Val()
				if fields["state"] != "active" || fields[wire.FieldOwner] != "another" {
					t.Errorf("the other worker's task is %s, of %q", fields["state"], fields[wire.FieldOwner])
				}
			}
		})
	}
}

// No step brings back the record of a task that has ended elsewhere, and none but that of an acceptance writes into
// another worker's.
func TestSteps_late(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	records := asynqbatch.New(client, asynqbatch.Config{LostField: wire.FieldLost, OwnerField: wire.FieldOwner, Steps: steps()})
	l := newLedger(client, records, *new(WorkerConfig).withDefaults().Logger)
	d := newTry("gone")
	d.record, d.onceToken = "{}", "T"
	i := isolation.New(client, l.log)
	defer i.Stop()
	tk := &taskMessage{key: d.key, queue: "default", id: "gone", payload: &wire.Payload{}}
	late := func() {
		for name := range steps() {
			step := d.step(name)
			if name == stepNext {
				one, two := newTry("gone"), newTry("gone")
				one.suffix, two.suffix, one.record = ".0", ".1", "{}"
				step, _ = one.stepWith(two)
			}
			if a := records.Do(t.Context(), []asynqbatch.Step{step})[0]; a.Err != nil {
				t.Errorf("%s: %v", name, a.Err)
			}
		}
		l.recent.Put(d.name(), d.record)
		l.missed()
		l.restore(t.Context())
		_ = l.note(t.Context(), tk, wire.Record{})
		_, _ = i.Run(t.Context(), tk.key, "", func() bool { return true })
		i.Forgive(t.Context(), d.key)
		_ = letters.Rescue(t.Context(), client, "default", "gone", "why")
	}
	if late(); client.Exists(t.Context(), d.key).Val() != 0 {
		t.Errorf("a record is there again: %v", client.HGetAll(t.Context(), d.key).Val())
	}
	client.HSet(t.Context(), d.key, "state", "active", "msg", "m", wire.FieldOwner, "another", wire.FieldWire, "theirs", wire.FieldBegun, "theirs")
	late()
	got := client.HGetAll(t.Context(), d.key).Val()
	if got[wire.FieldWire] != "theirs" || got[wire.FieldBegun] != "theirs" || got[wire.FieldAlone] != "" || got[wire.FieldWire+".1"] != "" || got["state"] != "active" {
		t.Errorf("another worker's record is now %v", got)
	}
	if got[wire.FieldSent] == "" {
		t.Error("the other worker does not hear that the message was accepted")
	}
}
