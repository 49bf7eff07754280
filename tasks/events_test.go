package tasks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
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
