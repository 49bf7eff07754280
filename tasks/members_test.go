package tasks

import (
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
			m.eventually("an empty queue", func() bool { return m.mains("main.default") == 0 })
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
		})
	}
}

// breaks makes a relay say goodbye to each message, as one does that ends.
func (m *members) breaks(r *relay) { r.gone.Store(true) }
func (m *members) mends(r *relay)  { r.gone.Store(false) }

// mains is how many tasks are in a queue.
func (m *members) mains(queue string) int {
	info, err := inspect(m.t, m.Server).GetQueueInfo(queue)
	if err != nil {
		return 0
	}
	return info.Size
}
