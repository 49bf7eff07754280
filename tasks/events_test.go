package tasks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// witness reads all events of a Redis.
type witness struct {
	mu  sync.Mutex
	all []Event
}

// witness reads what happens from now on.
func (h *house) witness(client redis.UniversalClient) *witness {
	h.t.Helper()
	w := new(witness)
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewEvents(client, EventsConfig{Group: "witness"}).Run(ctx, func(_ context.Context, list []Event) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, list...)
			return nil
		})
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	h.eventually("the reader has begun", func() bool { return client.HExists(h.t.Context(), "mailpouch:events", "group:witness").Val() })
	return w
}

func (w *witness) events() []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all)
}

// told is what has happened to each message and recipient, in order: "queued delayed sent". The recipient is behind the ID.
func (w *witness) told() map[string]string {
	list := w.events()
	slices.SortStableFunc(list, func(a, b Event) int { return a.At.Compare(b.At) })
	told := map[string]string{}
	for _, e := range list {
		key := e.EmailID + " " + e.Recipient
		told[key] = strings.TrimSpace(told[key] + " " + strings.TrimPrefix(string(e.Type), "email."))
	}
	return told
}

// tells waits until what has happened is as wanted, and reports what is not.
func (h *house) tells(w *witness, want map[string]string) {
	h.t.Helper()
	n := 0
	for _, types := range want {
		n += len(strings.Fields(types))
	}
	h.eventually(fmt.Sprint(n, " events"), func() bool { return len(w.events()) >= n })
	got := w.told()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			h.t.Errorf("%s: %q, want %q", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if want[key] == "" {
			h.t.Errorf("%s: %q, and there is no such message", key, got[key])
		}
	}
	ids := map[string]bool{}
	for _, e := range w.events() {
		if ids[e.ID] {
			h.t.Errorf("%+v came twice", e)
		}
		ids[e.ID] = true
	}
}

// eventHouse is a house with events.
func eventHouse(t *testing.T, cfg QueueConfig) (*house, WorkerConfig) {
	t.Helper()
	h := newHouse(t, redistest.Options{})
	cfg.Events = EventLog{On: true}
	h.queue = NewQueue(h.Client(t), cfg)
	worker := h.config()
	worker.Events = EventLog{On: true}
	return h, worker
}

// fates is a relay's answer by subject: "ok", "no", "later" the first time, "part": the recipient no@ is refused, and later@ the first time.
func fates() func(context.Context, *mailer.EmailMessage) mailer.Result {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		mu.Lock()
		defer mu.Unlock()
		again := seen[m.MessageID]
		seen[m.MessageID] = true
		switch {
		case m.Subject == "no":
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
		case m.Subject == "later" && !again:
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "greylisted")}
		case m.Subject == "part" && !again:
			return mailer.Result{Refused: []*mailer.SendError{
				{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "no such user", Recipient: "no@example.com"},
				{Class: mailer.Temporary, Step: mailer.StepRcpt, Code: 450, Text: "greylisted", Recipient: "later@example.com"},
			}}
		}
		return mailer.Result{}
	}
}

// kinds are messages and what is told of them.
var kinds = []struct {
	subject string
	to      []string
	silent  bool
	want    []string // for each recipient
}{
	{subject: "ok", to: []string{"ann@example.com", "bob@example.com"}, want: []string{"queued sent", "queued sent"}},
	{subject: "no", to: []string{"ann@example.com"}, want: []string{"queued failed"}},
	{subject: "later", to: []string{"ann@example.com"}, want: []string{"queued delayed sent"}},
	{
		subject: "part", to: []string{"ann@example.com", "no@example.com", "later@example.com"},
		want: []string{"queued sent", "queued failed", "queued delayed sent"},
	},
	{subject: "no", to: []string{"ann@example.com"}, silent: true, want: []string{"queued failed"}},
	{subject: "later", to: []string{"ann@example.com"}, silent: true, want: []string{"queued failed"}},
	{
		subject: "part", to: []string{"ann@example.com", "no@example.com", "later@example.com"}, silent: true,
		want: []string{"queued sent", "queued failed", "queued failed"},
	},
}

// Each recipient of each message has one event for each thing that happens, and one final event, whatever the message travels in.
func TestEvents(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size int
		o    Options
	}{
		"alone":             {1, Options{}},
		"together":          {100, Options{}},
		"scheduled":         {1, Options{ProcessIn: time.Millisecond}},
		"kept":              {1, Options{Retention: time.Hour}},
		"once":              {1, Options{Unique: time.Hour}},
		"at most":           {1, Options{AtMostOnce: true}},
		"kept, together":    {100, Options{Retention: time.Hour}},
		"at most, together": {100, Options{AtMostOnce: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.o.Tags, tt.o.Mailing = []string{"a", "b"}, "july"
			h, cfg := eventHouse(t, QueueConfig{BulkSize: tt.size, Options: tt.o})
			h.relay.answer = fates()
			w := h.witness(h.Client(t))
			want := map[string]string{}
			n := len(kinds) * 3
			ids := h.sendAll(n, func(i int, m *mailer.EmailMessage) {
				k := kinds[i%len(kinds)]
				m.Subject, m.To, m.FailSilently = k.subject, k.to, k.silent
				m.Body = fmt.Sprint("Message ", i)
			})
			for i, id := range ids {
				for j, to := range kinds[i%len(kinds)].to {
					want[id+" "+to] = kinds[i%len(kinds)].want[j]
				}
			}
			h.start(cfg)
			h.tells(w, want)
			for _, e := range w.events() {
				if e.MessageID == "" || e.Queue != "default" || e.Mailing != "july" || !slices.Equal(e.Tags, []string{"a", "b"}) || e.At.IsZero() {
					t.Errorf("%+v", e)
				}
				said := map[EventType]string{EventQueued: "", EventSent: "250 2.0.0 Ok: <", EventDelayed: "greylisted", EventFailed: "5", EventCancelled: ""}[e.Type]
				if e.Type == EventFailed && e.Reply == "" || e.Type != EventFailed && !strings.Contains(e.Reply, said) || e.Type == EventQueued && e.Reply != "" {
					t.Errorf("%s: reply %q, want %q", e.Type, e.Reply, said)
				}
				if (e.Tries == 0) != (e.Type == EventQueued) && e.Type != EventFailed {
					t.Errorf("%s after %d tries", e.Type, e.Tries)
				}
			}
		})
	}
}

// merged is all of several maps.
func merged(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// each is that the same happened to the messages with these IDs, for their recipients.
func each(ids []string, to func(i int) string, types string) map[string]string {
	all := map[string]string{}
	for i, id := range ids {
		all[id+" "+to(i)] = types
	}
	return all
}

func toAnn(int) string    { return "ann@example.com" }
func toUser(i int) string { return fmt.Sprintf("u%d@example.com", i) }

// What is taken back has one event of that, however often it is asked for, and none of its worker.
func TestEvents_cancelled(t *testing.T) {
	t.Parallel()
	h, cfg := eventHouse(t, QueueConfig{})
	w := h.witness(h.Client(t))
	blocking := h.handOver("first", Options{})
	free, reached := make(chan struct{}), make(chan struct{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.Subject == "first" {
			close(reached)
			<-free
		}
		return mailer.Result{}
	}
	cfg.Connections, cfg.BatchSize, cfg.Concurrency = 1, 1, 10
	h.start(cfg)
	<-reached // and what is handed over now is in the worker's hand, or waits
	var ids []string
	for i, o := range []Options{{}, {ProcessIn: time.Hour}, {IdempotencyKey: "a"}, {Unique: time.Hour, Queue: "default"}} {
		ids = append(ids, h.handOver(fmt.Sprint("c", i), o))
	}
	for _, id := range ids {
		h.cancels(id, nil)
		_ = h.queue.Cancel(t.Context(), id)
	}
	again := h.handOver("c2", Options{IdempotencyKey: "a"}) // its key is free
	mass := h.sendAll(3, nil)
	h.cancels(mass[1], nil)
	_ = h.queue.Cancel(t.Context(), mass[1])
	h.queue = NewQueue(h.Client(t), QueueConfig{Events: EventLog{On: true}, Options: Options{Mailing: "july", ProcessIn: time.Hour}})
	mailing := append(h.sendAll(5, nil), h.handOver("m", Options{}))
	if got, err := h.queue.CancelMailing(t.Context(), "july"); err != nil || got.Cancelled != 6 {
		t.Errorf("%+v, %v", got, err)
	}
	close(free)
	h.tells(w, merged(
		each([]string{blocking, again}, toAnn, "queued sent"), each(ids, toAnn, "queued cancelled"), each(mailing[:5], toUser, "queued cancelled"),
		each(mailing[5:], toAnn, "queued cancelled"),
		map[string]string{
			mass[0] + " u0@example.com": "queued sent", mass[1] + " u1@example.com": "queued cancelled", mass[2] + " u2@example.com": "queued sent",
		}))
}

// What expires, and what no list names, has its final event; a dead letter that is queued again begins anew, and what of a task of many had ended
// has nothing more.
func TestEvents_sweepAndReplay(t *testing.T) {
	t.Parallel()
	h, cfg := eventHouse(t, QueueConfig{})
	w := h.witness(h.Client(t))
	const mass = "default:mass"
	for _, name := range []string{"default", mass} {
		if err := inspect(t, h.Server).PauseQueue(name); err != nil {
			t.Fatal(err)
		}
	}
	lost := h.handOver("lost", Options{})
	h.queue = h.queue.With(Options{Deadline: time.Now().Add(5 * time.Second)})
	single := h.handOver("0", Options{})
	ids := h.sendAll(3, nil)
	h.cancels(ids[1], nil)
	h.Client(t).LRem(t.Context(), "asynq:{default}:pending", 0, lost)
	cfg.sweepEvery = 50 * time.Millisecond
	h.start(cfg)
	want := merged(each([]string{lost, single}, toAnn, "queued failed"), each(ids, toUser, "queued failed"), map[string]string{ids[1] + " u1@example.com": "queued cancelled"})
	h.tells(w, want)

	d := NewDeadLetters(h.Client(t))
	task, _, _ := wire.SplitID(ids[0])
	for id, name := range map[string]string{single: "default", task: mass} {
		if _, err := d.Replay(t.Context(), name, id); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"default", mass} {
		h.eventually(name+" goes on", func() bool {
			err := inspect(t, h.Server).UnpauseQueue(name)
			return err == nil || strings.Contains(err.Error(), "not paused")
		})
	}
	again := merged(each([]string{single}, toAnn, "queued failed queued sent"), each(ids, toUser, "queued failed queued sent"))
	again[ids[1]+" u1@example.com"] = "queued cancelled"
	h.tells(w, merged(want, again))
}

// Three workers die with a message, and two more with it alone. All others are sent, each with one event of that, and it has one that nothing
// can be read of it.
func TestEvents_killed(t *testing.T) {
	t.Parallel()
	for name, mass := range map[string]int{"tasks": 1, "a bulk task": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := eventHouse(t, QueueConfig{BulkSize: mass})
			client := h.Client(t)
			w := h.witness(client)
			const n = 20
			ids := h.sendAll(n, func(i int, m *mailer.EmailMessage) {
				if i == 7 {
					m.Subject = killer
				}
			})
			for deaths := 0; deaths < 10; deaths++ {
				if _, done := mortalWorker(t, h, client, n-1); done {
					break
				}
				for _, queue := range []string{"default", "default:mass"} {
					past := time.Now().Add(-time.Minute).Unix()
					if err := client.Eval(t.Context(), expireScript, []string{"asynq:{" + queue + "}:lease"}, past).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := each(ids, toUser, "queued sent")
			want[ids[7]+" u7@example.com"], want[ids[7]+" "] = "queued", "failed"
			h.tells(w, want)
		})
	}
}

// What asynq archives by itself, since its workers have died too often, has its final event too.
func TestEvents_archivedByAsynq(t *testing.T) {
	t.Parallel()
	h, cfg := eventHouse(t, QueueConfig{})
	client := h.Client(t)
	w := h.witness(client)
	id := h.handOver("0", Options{})
	ids := h.sendAll(3, nil)
	task, _, _ := wire.SplitID(ids[0])
	client.HSet(t.Context(), asynqbatch.TaskKey("default:mass", task), wire.FieldSent+".1", `{"reply":"250 Ok"}`)
	for queue, id := range map[string]string{"default": id, "default:mass": task} {
		key := asynqbatch.TaskKey(queue, id)
		message := client.HGet(t.Context(), key, "msg").Val()
		client.HSet(t.Context(), key, "msg", message+"\x28\x00") // asynq's fifth field, the retries that there may be: none
		keys := []string{"asynq:{" + queue + "}:pending", "asynq:{" + queue + "}:active", "asynq:{" + queue + "}:lease"}
		if err := client.Eval(t.Context(), abandonScript, keys, time.Now().Add(-2*time.Minute).Unix(), asynqbatch.TaskKey(queue, "")).Err(); err != nil {
			t.Fatal(err)
		}
	}
	h.start(cfg)
	want := merged(each([]string{id}, toAnn, "queued failed"), each(ids, toUser, "queued failed"))
	want[ids[1]+" u1@example.com"] = "queued"
	h.tells(w, want)
}

// Redis has been told that a message was accepted, or has not, and the worker does not know: there is one event all the same.
func TestEvents_replyLost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		size int
		o    Options
		done bool // Redis does it, and its answer is lost
	}{
		{"alone, not done", 1, Options{}, false},
		{"alone, done", 1, Options{}, true},
		{"kept, not done", 1, Options{Retention: time.Hour}, false},
		{"kept, done", 1, Options{Retention: time.Hour}, true},
		{"together, not done", 100, Options{}, false},
		{"together, done", 100, Options{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, cfg := eventHouse(t, QueueConfig{BulkSize: tt.size, Options: tt.o})
			w := h.witness(h.Client(t))
			ids := h.sendAll(6, nil)
			client := h.Client(t)
			var once atomic.Bool
			client.AddHook(losing{func(cmd redis.Cmder) bool {
				tells := slices.ContainsFunc(cmd.Args(), func(a any) bool {
					header, _ := a.(string)
					return strings.HasPrefix(header, stepAccepted+" ") || strings.HasPrefix(header, stepNext+" ")
				})
				return tells && !once.Swap(true)
			}, tt.done})
			cfg.Connections = 1
			h.startOn(client, cfg)
			h.tells(w, each(ids, toUser, "queued sent"))
		})
	}
}

// losing is a client's hook that loses commands, or their answers.
type losing struct {
	which func(redis.Cmder) bool
	done  bool
}

func (losing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l losing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !l.which(cmd) {
			return next(ctx, cmd)
		}
		if l.done {
			_ = next(ctx, cmd)
		}
		cmd.SetErr(errCut)
		return errCut
	}
}

func (losing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Mail does not wait for events: it goes on where Redis takes none, and without them nothing of them is in Redis.
func TestEvents_refusedAndOff(t *testing.T) {
	t.Parallel()
	h, cfg := eventHouse(t, QueueConfig{BulkSize: 1})
	client := h.Client(t)
	client.Set(t.Context(), "mailpouch:{default}:events", "not a stream", 0)
	h.relay.answer = fates()
	h.sendAll(7, func(i int, m *mailer.EmailMessage) { m.Subject = []string{"ok", "no", "later"}[i%3] })
	h.cancels(h.handOver("c", Options{ProcessIn: time.Hour}), nil)
	h.start(cfg)
	h.wait(5)
	h.eventually("two dead letters, and nothing else", func() bool { info := h.info(); return info.Archived == 2 && info.Size == 2 })

	off, _ := eventHouse(t, QueueConfig{})
	off.queue = NewQueue(off.Client(t), QueueConfig{})
	off.relay.answer = fates()
	off.sendAll(7, func(i int, m *mailer.EmailMessage) { m.Subject = []string{"ok", "no", "later"}[i%3] })
	off.cancels(off.handOver("c", Options{ProcessIn: time.Hour}), nil)
	off.start(off.config())
	off.wait(5)
	if keys := off.Client(t).Keys(t.Context(), "*events*").Val(); len(keys) > 0 {
		t.Errorf("there are %q", keys)
	}
}

// A message's events come from whichever of a cluster's masters it passes through, with the rights that are documented.
func TestEvents_cluster(t *testing.T) {
	t.Parallel()
	h := newClusterHouse(t)
	w := h.witness(h.client)
	want := map[string]string{}
	for i, size := range []int{1, 100} {
		for j, o := range []Options{{}, {Queue: "bulk", Using: "marketing"}} {
			h.queue = NewQueue(h.client, QueueConfig{BulkSize: size, Mailers: []string{"marketing"}, Shards: 3, Options: o, Events: EventLog{On: true}})
			if j == 1 && size == 1 { // a program that does not know the mailer
				h.queue = NewQueue(h.client, QueueConfig{BulkSize: size, Shards: 3, Options: o, Events: EventLog{On: true}})
			}
			ids := h.sendAll(20, func(n int, m *mailer.EmailMessage) {
				m.MessageID = fmt.Sprintf("<%d-%d-%d@t>", i, j, n)
				m.Subject = []string{"ok", "no", "later"}[n%3]
			})
			for n, id := range ids {
				want[id+" "+toUser(n)] = []string{"queued sent", "queued failed", "queued delayed sent"}[n%3]
			}
		}
	}
	h.relay.answer = fates()
	cfg := h.config()
	cfg.Mailers, cfg.Queues, cfg.Shards, cfg.Events = map[string]int{"marketing": 2}, map[string]int{"default": 3, "bulk": 1}, 3, EventLog{On: true}
	h.start(cfg)
	h.tells(w, want)
	if n := h.masters("mailpouch:*:events"); n < 2 {
		t.Errorf("all streams are on %d masters", n)
	}
	for _, e := range w.events() {
		if e.Queue == "bulk" && e.Mailer != "marketing" {
			t.Errorf("%+v", e)
		}
	}
}
