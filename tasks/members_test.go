package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// members are the relays of the mailer "main", which has members, and what a worker with them has said.
type members struct {
	*house
	a, b   *relay
	aDown  atomic.Bool
	bDown  atomic.Bool
	states chan FailoverState
	held   chan error // of main alone

	mu       sync.Mutex
	outcomes []Outcome
}

var errRefused = &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}

// newMembers returns the configuration of a worker whose mailer "main" has the members a and b.
func newMembers(t *testing.T, weighted bool, bulk int) (*members, WorkerConfig) {
	t.Helper()
	m := &members{house: newHouse(t, redistest.Options{}), a: newRelay(), b: newRelay(), states: make(chan FailoverState, 10_000), held: make(chan error, 10_000)}
	for r, down := range map[*relay]*atomic.Bool{m.a: &m.aDown, m.b: &m.bDown} {
		r.down = func() error {
			if down.Load() {
				return errRefused
			}
			return nil
		}
	}
	cfg := m.config()
	cfg.Mailers = map[string]int{"main": 0, "a": 2, "b": 2}
	cfg.Failover = map[string]Failover{"main": {Members: []Member{{"a", 3}, {"b", 1}}, Weighted: weighted}}
	cfg.Connect = func(name string) (mailer.Backend, error) {
		switch name {
		case "a":
			return m.a.connect(name)
		case "b":
			return m.b.connect(name)
		case "":
			return m.relay.connect(name)
		}
		return nil, fmt.Errorf("a connection for %q", name)
	}
	cfg.Observers = []Observer{{
		Failover: func(s FailoverState) { m.states <- s },
		Held: func(name string, reason error) {
			if name == "main" {
				m.held <- reason
			}
		},
		Outcome: func(o Outcome) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.outcomes = append(m.outcomes, o)
		},
	}}
	b, err := NewQueue(m.Client(t), QueueConfig{BulkSize: bulk, Mailers: []string{"main", "a", "b"}}).Using("main")
	if err != nil {
		t.Fatal(err)
	}
	m.queue = b.(*Queue)
	return m, cfg
}

// arrive waits until a and b together have so many messages.
func (m *members) arrive(n int) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%d messages arrived", n), func() bool { return len(m.a.all())+len(m.b.all()) >= n })
}

// each checks that each of so many messages arrived once, at a or at b.
func (m *members) each(n int) {
	m.t.Helper()
	count := m.a.ids()
	for id, times := range m.b.ids() {
		count[id] += times
	}
	if len(count) != n {
		m.t.Errorf("%d different messages delivered, want %d", len(count), n)
	}
	for id, times := range count {
		if times != 1 {
			m.t.Errorf("%s delivered %d times", id, times)
		}
	}
}

// serve waits until these members serve.
func (m *members) serve(names ...string) FailoverState {
	m.t.Helper()
	stuck := time.After(stuckAfter)
	for {
		select {
		case s := <-m.states:
			if slices.Equal(s.serving(), names) {
				return s
			}
		case <-stuck:
			m.t.Fatalf("%q never serve", names)
		}
	}
}

// went are the members that messages went with, by the observer.
func (m *members) went() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	by := map[string]int{}
	for _, o := range m.outcomes {
		if o.Action == ActionSent {
			by[o.Member]++
		}
	}
	return by
}

// The first member that takes mail has it: the second one while the first is away, and the first one again when it is back.
func TestMembers_order(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, cfg := newMembers(t, false, bulk)
			stop := m.start(cfg)
			m.send(200, nil)
			m.arrive(200)
			if n := len(m.b.all()); n > 0 {
				t.Errorf("%d messages went to b while a took them", n)
			}
			m.serve("a")

			m.aDown.Store(true)
			m.a.answer = nil
			m.breaks(m.a)
			m.send(200, func(e *mailer.EmailMessage) { e.MessageID = "<second-" + e.MessageID[1:] })
			m.arrive(400)
			if s := m.serve("b"); s.Members[0].Reason == nil || s.PassedOver() != 1 {
				t.Errorf("%+v", s)
			}
			m.mends(m.a)
			m.aDown.Store(false)
			m.serve("a")
			before := len(m.b.all())
			m.send(100, func(e *mailer.EmailMessage) { e.MessageID = "<third-" + e.MessageID[1:] })
			m.arrive(500)
			m.eventually("empty queues", func() bool { return m.size("main.default")+m.size("main.default:mass") == 0 })
			stop()
			m.each(500)
			if n := len(m.b.all()); n != before {
				t.Errorf("%d messages went to b when a was back", n-before)
			}
			if by := m.went(); by["a"] != len(m.a.all()) || by["b"] != len(m.b.all()) {
				t.Errorf("the observer has heard of %v, and a has %d, b %d", by, len(m.a.all()), len(m.b.all()))
			}
			if len(m.held) > 0 {
				t.Errorf("main was held: %v", <-m.held)
			}
			for _, o := range m.outcomes {
				if o.Try != 1 || o.Mailer != "main" {
					t.Errorf("%+v", o)
				}
			}
			for _, o := range []Outcome{m.outcomes[0], m.outcomes[250]} {
				if s, err := NewLookup(m.Client(t)).Status(t.Context(), o.TaskID); err != nil || s.State != StateSent || s.Mailer != "main" || s.Member != o.Member {
					t.Errorf("the history has %+v (%v), want the member %s", s, err, o.Member)
				}
			}
		})
	}
}

// breaks makes a relay say goodbye to each message, as one does that ends.
func (m *members) breaks(r *relay) { r.gone.Store(true) }
func (m *members) mends(r *relay)  { r.gone.Store(false) }

// Messages are spread by weights over all members that take mail.
func TestMembers_weighted(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, cfg := newMembers(t, true, bulk)
			m.start(cfg)
			m.send(400, nil)
			m.arrive(400)
			m.serve("a", "b")
			// A part of a bulk task goes as a whole, so there it is not exact.
			if got := len(m.a.all()); bulk == 1 && got != 300 || got < 250 || got > 350 {
				t.Errorf("a has %d of 400, want 300", got)
			}
			m.bDown.Store(true)
			m.breaks(m.b)
			m.send(100, func(e *mailer.EmailMessage) { e.MessageID = "<second-" + e.MessageID[1:] })
			m.arrive(500)
			m.serve("a")
			m.each(500)
		})
	}
}

// While no member takes mail the mailer is held, and its mail waits in Redis with no try spent. It goes on with whichever is back.
func TestMembers_allAway(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, cfg := newMembers(t, false, bulk)
			m.aDown.Store(true)
			m.bDown.Store(true)
			m.send(60, nil)
			w, stop := m.startWorker(m.Client(t), cfg)
			reason := <-m.held
			if reason == nil || mailer.ClassOf(reason) != mailer.Unavailable {
				t.Errorf("held: %v", reason)
			}
			m.eventually("all are back in Redis", func() bool {
				return m.infoOf(map[int]string{1: "main.default", 30: "main.default:mass"}[bulk]).Pending == 60/bulk
			})
			if why := w.Held()["main"]; why == nil {
				t.Errorf("Held: %v", w.Held())
			}
			m.bDown.Store(false)
			m.arrive(60)
			if reason := <-m.held; reason != nil {
				t.Errorf("held: %v", reason)
			}
			m.eventually("only a is away, which has no mail of its own", func() bool { return len(w.Held()) == 0 })
			stop()
			m.each(60)
			if len(m.a.all()) > 0 {
				t.Errorf("a has %d", len(m.a.all()))
			}
		})
	}
}

// What a member refuses, and what it may have taken, goes to no other one for that; the message's own retry does what it always does.
func TestMembers_results(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  *mailer.SendError
		once bool
		want Action
	}{
		"permanent":             {sendError(mailer.Permanent, 550, "no"), false, ActionDead},
		"temporary":             {sendError(mailer.Temporary, 451, "later"), false, ActionRetry},
		"unknown":               {sendError(mailer.Unknown, 0, "cut off"), false, ActionRetry},
		"unknown, at most once": {sendError(mailer.Unknown, 0, "cut off"), true, ActionDead},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, cfg := newMembers(t, false, 1)
			m.a.answer = func(context.Context, *mailer.EmailMessage) mailer.Result { return mailer.Result{Err: tt.err} }
			cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
			m.queue = m.queue.With(Options{AtMostOnce: tt.once})
			m.start(cfg)
			m.send(1, nil)
			m.eventually("an outcome", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return len(m.outcomes) == 1
			})
			if o := m.outcomes[0]; o.Action != tt.want || o.Member != "a" {
				t.Errorf("%s with %q: %v", o.Action, o.Member, o.Err)
			}
			if n := len(m.b.all()); n > 0 {
				t.Errorf("b has %d messages", n)
			}
		})
	}
}

// A member that says nothing any more, over all its connections, keeps what is on the wire, and nothing else.
func TestMembers_silent(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, cfg := newMembers(t, false, bulk)
			cfg.stillPatience = 100 * time.Millisecond
			answers := make(chan struct{})
			m.a.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				<-answers
				return mailer.Result{}
			}
			stop := m.start(cfg)
			m.send(200, nil)
			m.arrive(198) // a has two connections
			if n := len(m.a.all()); n != 0 {
				t.Errorf("a has taken %d", n)
			}
			if s := m.serve("b"); s.Members[0].Reason == nil {
				t.Errorf("%+v", s)
			}
			close(answers)
			m.arrive(200)
			m.serve("a")
			stop()
			m.each(200)
		})
	}
}

// A member that is paused is passed over; what is in its own queue waits. If the mailer itself is paused nothing of it is begun.
func TestMembers_paused(t *testing.T) {
	t.Parallel()
	m, cfg := newMembers(t, false, 1)
	m.start(cfg)
	m.send(1, nil)
	m.arrive(1)
	pauses := NewPauses(m.Client(t))
	if _, err := pauses.Pause(t.Context(), Pause{Target: PauseTarget{Mailer: "a"}}); err != nil {
		t.Fatal(err)
	}
	if s := m.serve("b"); !errors.Is(s.Members[0].Reason, errMemberPaused) {
		t.Errorf("%+v", s)
	}
	m.send(10, func(e *mailer.EmailMessage) { e.MessageID = "<second-" + e.MessageID[1:] })
	m.arrive(11)
	if len(m.b.all()) != 10 {
		t.Errorf("b has %d", len(m.b.all()))
	}
	if _, err := pauses.Pause(t.Context(), Pause{Target: PauseTarget{Mailer: "main"}}); err != nil {
		t.Fatal(err)
	}
	if ok, err := pauses.Resume(t.Context(), PauseTarget{Mailer: "a"}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	m.serve("a")
	m.send(10, func(e *mailer.EmailMessage) { e.MessageID = "<third-" + e.MessageID[1:] })
	if n := m.size("main.default"); n != 10 || len(m.a.all())+len(m.b.all()) != 11 {
		t.Errorf("%d wait of a paused mailer, want 10", n)
	}
	if ok, err := pauses.Resume(t.Context(), PauseTarget{Mailer: "main"}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	m.arrive(21)
	m.each(21)
	if len(m.a.all()) != 11 {
		t.Errorf("a has %d", len(m.a.all()))
	}
}

// A member that greets and takes nothing gets one message at a time to be probed with, and that goes on to the other one.
func TestMembers_probe(t *testing.T) {
	t.Parallel()
	m, cfg := newMembers(t, false, 1)
	m.breaks(m.a)
	var most, now atomic.Int64
	probes := make(chan struct{}, 1000)
	m.a.probed = func() {
		most.Store(max(most.Load(), now.Add(1)))
		probes <- struct{}{}
		now.Add(-1)
	}
	m.start(cfg)
	m.send(100, nil)
	m.arrive(100)
	m.serve("b")
	for len(probes) > 0 {
		<-probes
	}
	most.Store(0)
	sent := 100
	m.eventually("a is probed with a message", func() bool {
		m.send(1, func(e *mailer.EmailMessage) { e.MessageID = fmt.Sprintf("<more-%d@t>", sent) })
		sent++
		m.arrive(sent)
		return len(probes) > 0
	})
	if most.Load() > 1 {
		t.Errorf("a was probed with %d messages at once", most.Load())
	}
	if len(m.a.all()) > 0 {
		t.Errorf("a has %d", len(m.a.all()))
	}
	for id, n := range m.b.ids() {
		if n != 1 {
			t.Errorf("%s delivered %d times", id, n)
		}
	}
}

func TestNewWorker_failover_wrong(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]Failover{
		"mailer main: it has no members":                                   {},
		"mailer main: member main: it cannot be a member of itself":        {Members: []Member{{"main", 1}}},
		"mailer main: member nobody: there is no mailer of that name":      {Members: []Member{{"nobody", 1}}},
		"mailer main: member default: a member is a mailer with a name":    {Members: []Member{{"", 1}}},
		"mailer main: member other: it has members itself":                 {Members: []Member{{"other", 1}}},
		"mailer main: member a: its weight is 0, and has to be at least 1": {Members: []Member{{"a", 0}}},
		"mailer main: member a: it is named twice":                         {Members: []Member{{"a", 1}, {"a", 2}}},
	} {
		_, err := NewWorker(nil, WorkerConfig{
			Connect:  newRelay().connect,
			Mailers:  map[string]int{"main": 0, "a": 0, "other": 0},
			Failover: map[string]Failover{"main": f, "other": {Members: []Member{{"a", 1}}}},
		})
		var wrong *FailoverError
		if !errors.As(err, &wrong) || err.Error() != "tasks: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
