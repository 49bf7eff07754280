package failover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/backends/failover"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// server is a next hop without a wire.
type server struct {
	answer func(m *mailer.EmailMessage) mailer.Result // decides about a message

	mu    sync.Mutex
	down  bool
	opens int
	tries int // to open a connection
	mails []mailertest.Mail
	ids   []string // of the messages, by their subjects
}

func (s *server) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *server) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ids)
}

func (s *server) tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries
}

// conn is a backend of a server.
type conn struct {
	*server

	open bool
}

func (c *conn) Open(ctx context.Context) (bool, error) {
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		return false, nil
	}
	c.tries++
	if c.down {
		return false, &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}
	}
	c.open = true
	c.opens++
	return true, nil
}

func (c *conn) Close() error {
	c.open = false
	return nil
}

func (c *conn) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, c, messages)
}

func (c *conn) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.Deliver(ctx, c, b, mailer.Defaults{}, func(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
		if c.answer != nil {
			if r := c.answer(m); r.Err != nil {
				return r
			}
		}
		var data bytes.Buffer
		if _, err := m.WriteTo(&data); err != nil {
			return mailer.Result{Err: err}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mails = append(c.mails, mailertest.Mail{Envelope: to, Data: data.Bytes()})
		c.ids = append(c.ids, m.Subject)
		return mailer.Result{Reply: "250 Ok"}
	})
}

// newBackend returns a backend with the members a (weight 3) and b (weight 1).
func newBackend(t *testing.T, weighted bool, health *failover.Health, a, b *server) *failover.Backend {
	t.Helper()
	f, err := failover.New(failover.Config{
		Name: "main", Weighted: weighted, Health: health,
		Members: []failover.Member{{"a", 3, &conn{server: a}}, {"b", 1, &conn{server: b}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, weighted := range map[string]bool{"order": false, "weighted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mailertest.Run(t, func(t *testing.T) mailertest.Harness {
				t.Parallel()
				a, b := new(server), new(server)
				h := mailertest.Harness{
					Backend: newBackend(t, weighted, nil, a, b),
					Received: func() []mailertest.Mail {
						return slices.Concat(a.mails, b.mails)
					},
					Down: func() { a.set(true); b.set(true) },
				}
				if !weighted { // with weights there is one for each member
					h.Connections = func() int { return a.opens + b.opens }
				}
				return h
			})
		})
	}
}

func messages(n int) []*mailer.EmailMessage {
	list := make([]*mailer.EmailMessage, n)
	for i := range list {
		list[i] = &mailer.EmailMessage{Subject: fmt.Sprint(i), FromEmail: "from@example.com", To: []string{"to@example.org"}}
	}
	return list
}

func mustSend(t *testing.T, b mailer.Backend, n int) {
	t.Helper()
	if sent, err := b.SendMessages(t.Context(), messages(n)); sent != n || err != nil {
		t.Errorf("sent %d of %d: %v", sent, n, err)
	}
}

// A member that cannot be reached is left alone for a while, by all backends that share what is known of it, and serves again
// when it is back.
func TestBackend_order(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, health := new(server), new(server), new(failover.Health)
		send := func() { mustSend(t, newBackend(t, false, health, a, b), 2) }
		count := func(when string, inA, inB, triedA int) {
			t.Helper()
			if len(a.got()) != inA || len(b.got()) != inB || a.tried() != triedA {
				t.Errorf("%s: a has %d, b %d, a was tried %d times; want %d, %d, %d", when, len(a.got()), len(b.got()), a.tried(), inA, inB, triedA)
			}
		}
		send()
		count("both take mail", 2, 0, 1)
		a.set(true)
		send()
		count("a is away", 2, 2, 2)
		send()
		send()
		count("a is left alone", 2, 6, 2)
		time.Sleep(1001 * time.Millisecond)
		send()
		send()
		count("a is tried once more", 2, 10, 3)
		time.Sleep(1001 * time.Millisecond)
		send()
		count("the second pause is longer", 2, 12, 3)
		time.Sleep(time.Second)
		a.set(false)
		send()
		send()
		count("a is back", 6, 12, 5)
	})
}

// Messages are spread by the weights, in runs that keep their order, also if they come one by one; and all go to the
// others while one is away.
func TestBackend_weighted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, health := new(server), new(server), new(failover.Health)
		mustSend(t, newBackend(t, true, health, a, b), 100)
		if len(a.got()) != 75 || len(b.got()) != 25 || !slices.Equal(slices.Concat(a.got(), b.got()), subjects(100)) {
			t.Errorf("a has %v\nb has %v", a.got(), b.got())
		}
		for range 40 {
			mustSend(t, newBackend(t, true, health, a, b), 1)
		}
		if len(a.got()) != 105 || len(b.got()) != 35 {
			t.Errorf("one by one: a has %d, b %d", len(a.got()), len(b.got()))
		}
		a.set(true)
		mustSend(t, newBackend(t, true, health, a, b), 100)
		tried := a.tried()
		mustSend(t, newBackend(t, true, health, a, b), 100)
		if len(a.got()) != 105 || len(b.got()) != 235 || a.tried() != tried {
			t.Errorf("a is away: a has %d, b %d, and a was tried %d times more", len(a.got()), len(b.got()), a.tried()-tried)
		}
		a.set(false)
		time.Sleep(time.Minute)
		mustSend(t, newBackend(t, true, health, a, b), 1) // finds that it is back
		before := len(a.got())
		mustSend(t, newBackend(t, true, health, a, b), 100)
		if got := len(a.got()) - before; got != 75 {
			t.Errorf("a is back: it has %d of 100", got)
		}
	})
}

func subjects(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// Only what a member is unavailable for goes on. What it refuses, and what it may have taken, does not.
func TestBackend_results(t *testing.T) {
	t.Parallel()
	refuse := func(class mailer.Class, code int) mailer.Result {
		return mailer.Result{Err: &mailer.SendError{Class: class, Step: mailer.StepEnd, Code: code, Text: "no"}}
	}
	for name, tt := range map[string]struct {
		result mailer.Result
		moves  bool
	}{
		"permanent":   {refuse(mailer.Permanent, 550), false},
		"temporary":   {refuse(mailer.Temporary, 451), false},
		"unknown":     {refuse(mailer.Unknown, 0), false},
		"unavailable": {refuse(mailer.Unavailable, 421), true},
		"untyped":     {mailer.Result{Err: errors.New("disk full")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := new(server), new(server)
			a.answer = func(m *mailer.EmailMessage) mailer.Result {
				if m.Subject == "1" {
					return tt.result
				}
				return mailer.Result{}
			}
			sent, err := newBackend(t, false, nil, a, b).SendMessages(t.Context(), messages(3))
			if want := map[bool]int{true: 3, false: 2}[tt.moves]; sent != want {
				t.Errorf("sent %d, want %d: %v", sent, want, err)
			}
			if got := mailer.ErrorAt(err, 1); !tt.moves && !errors.Is(got, tt.result.Err) {
				t.Errorf("the error is %v, want %v", got, tt.result.Err)
			}
			if moved := slices.Contains(b.got(), "1"); moved != tt.moves || len(b.got()) > 1 {
				t.Errorf("b has %v", b.got())
			}
		})
	}
}

// An error of Begin or Commit is the message's result, whatever its class: nothing of the message goes to anybody.
func TestBackend_refusedByCaller(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"Begin", "Commit"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			a, b := new(server), new(server)
			no := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("not now")}
			batch := mailer.Batch{Messages: messages(3)}
			batch.Commit = func(i int) error {
				if i == 1 {
					return no
				}
				return nil
			}
			if commit := batch.Commit; step == "Begin" {
				batch.Begin = func(i int) (*mailer.EmailMessage, error) { return batch.Messages[i], commit(i) }
				batch.Commit = nil
			}
			results := map[int]error{}
			batch.Report = func(group []mailer.Report) {
				for _, r := range group {
					results[r.Index] = r.Err
				}
			}
			newBackend(t, false, nil, a, b).SendBatch(t.Context(), batch)
			if len(results) != 3 || !errors.Is(results[1], no) || results[0] != nil || results[2] != nil {
				t.Errorf("results: %v", results)
			}
			if len(b.got()) > 0 || len(a.got()) != 2 {
				t.Errorf("a has %v, b %v", a.got(), b.got())
			}
		})
	}
}

// If nobody takes mail the error says what each has said, and all have been tried, however often they have failed.
func TestBackend_allAway(t *testing.T) {
	t.Parallel()
	a, b, health := new(server), new(server), new(failover.Health)
	a.set(true)
	b.set(true)
	for range 3 {
		f := newBackend(t, false, health, a, b)
		_, err := f.SendMessages(t.Context(), messages(1))
		var members failover.MembersError
		if mailer.ClassOf(mailer.ErrorAt(err, 0)) != mailer.Unavailable || !errors.As(err, &members) || len(members) != 2 {
			t.Fatalf("error: %v", err)
		}
		for _, name := range []string{"a: ", "b: "} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("error: %v", err)
			}
		}
		if opened, err := f.Open(t.Context()); opened || mailer.ClassOf(err) != mailer.Unavailable {
			t.Errorf("Open: %v, %v", opened, err)
		}
	}
	b.set(false)
	mustSend(t, newBackend(t, false, health, a, b), 1)
	if len(b.got()) != 1 {
		t.Errorf("b has %v", b.got())
	}
}

// A backend that is open moves to another member and stays open there; Close closes both.
func TestBackend_open(t *testing.T) {
	t.Parallel()
	a, b := new(server), new(server)
	f := newBackend(t, false, nil, a, b)
	if opened, err := f.Open(t.Context()); !opened || err != nil {
		t.Fatal(opened, err)
	}
	mustSend(t, f, 2)
	a.set(true)
	a.answer = func(*mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepMail, Code: 421}}
	}
	mustSend(t, f, 2)
	mustSend(t, f, 2)
	if a.opens != 1 || b.opens != 1 || len(b.got()) != 4 {
		t.Errorf("connections to a: %d, to b: %d; b has %v", a.opens, b.opens, b.got())
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	b.mu.Lock()
	b.opens = 0
	b.mu.Unlock()
	mustSend(t, f, 1)
	if b.opens != 1 {
		t.Errorf("Close has left b open")
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	good := &conn{server: new(server)}
	for want, members := range map[string][]failover.Member{
		"there are no members":                                   nil,
		"member a has no backend":                                {{"a", 1, nil}},
		"the weight of member a is 0, and has to be at least 1":  {{"a", 0, good}},
		"there are two members of the name a":                    {{"a", 1, good}, {"a", 1, good}},
		"the weight of member b is -1, and has to be at least 1": {{"a", 1, good}, {"b", -1, good}},
	} {
		if _, err := failover.New(failover.Config{Members: members}); err == nil || err.Error() != "failover: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
