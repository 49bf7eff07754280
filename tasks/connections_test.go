package tasks

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// plug is a backend that does nothing but open connections.
type plug struct {
	mailer.Backend
	via  func(context.Context, func() error) error
	dial func() error
	open bool
}

func (p *plug) ConnectVia(via func(context.Context, func() error) error) { p.via = via }
func (p *plug) Account() string                                          { return "" }

func (p *plug) Open(ctx context.Context) (bool, error) {
	if p.open {
		return false, nil
	}
	err := p.via(ctx, p.dial)
	p.open = err == nil
	return p.open, err
}

// hub is a relay as plugs know it.
type hub struct {
	mu      sync.Mutex
	takes   int   // connections at once
	down    error // what it says to all
	open    int
	refused int
	ringing int
	most    int // dialled at the same time
	dials   []time.Time
}

func (h *hub) dial() error {
	h.mu.Lock()
	h.dials = append(h.dials, time.Now())
	h.ringing++
	h.most = max(h.most, h.ringing)
	h.mu.Unlock()
	time.Sleep(100 * time.Millisecond) // fake time
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ringing--
	switch {
	case h.down != nil:
		return h.down
	case h.open >= h.takes:
		h.refused++
		return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepGreet, Code: 421}
	}
	h.open++
	return nil
}

// attempts are the times of those after the first n.
func (h *hub) attempts(n int) []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.dials[n:])
}

// plugs returns so many connections to the hub, and where their pool logs to.
func (h *hub) plugs(n int) ([]*connection, *bytes.Buffer) {
	log := &bytes.Buffer{}
	pool := newConnections("", nil, WorkerConfig{}, zerolog.New(log))
	for range n {
		pool.add(&plug{dial: h.dial}, false)
	}
	return pool.all, log
}

// openAll opens all at the same time and returns the errors.
func openAll(ctx context.Context, all []*connection) []error {
	errs := make([]error, len(all))
	var opening sync.WaitGroup
	for i, c := range all {
		opening.Go(func() { errs[i] = c.Open(ctx) })
	}
	opening.Wait()
	return errs
}

// One connection is opened first, the others when it is open, and none when it cannot be.
func TestConnections_oneFirst(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]error{"works": nil, "refused": &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("refused")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &hub{takes: 50, down: down}
				all, _ := h.plugs(50)
				for i, err := range openAll(t.Context(), all) {
					if !errors.Is(err, down) {
						t.Fatalf("connection %d: %v, want %v", i, err, down)
					}
				}
				switch {
				case down != nil && len(h.dials) != 1:
					t.Errorf("%d connections tried, want 1", len(h.dials))
				case down == nil && (len(h.dials) != 50 || h.most != 49 || h.dials[1].Sub(h.dials[0]) < 100*time.Millisecond):
					t.Errorf("%d connections tried, at most %d at the same time, the second after %v", len(h.dials), h.most, h.dials[1].Sub(h.dials[0]))
				}
			})
		})
	}
}

// The pool shrinks to what the relay allows. One more is tried after pauses that double from 30 s to 10 min, and
// when one succeeds the next ones are tried at once.
func TestConnections_grow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hub{takes: 3}
		all, log := h.plugs(6)
		parked := 0
		for _, err := range openAll(t.Context(), all) {
			if isParked(err) {
				parked++
			} else if err != nil {
				t.Error(err)
			}
		}
		if parked != 3 || len(h.attempts(0)) > 6 {
			t.Fatalf("%d parked after %d attempts, want 3", parked, len(h.attempts(0)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for _, c := range all {
			if c.isParked() {
				waiting.Go(func() { c.await(ctx, ctx) })
			}
		}
		waiting.Go(func() { // mail goes out all the time
			for ctx.Err() == nil {
				all[0].pool.hasAccepted(1)
				time.Sleep(time.Second)
			}
		})
		began, before := time.Now(), len(h.attempts(0))
		time.Sleep(time.Hour)
		synctest.Wait()
		var pauses []time.Duration
		for _, at := range h.attempts(before) {
			pauses = append(pauses, at.Sub(began).Round(10*time.Second))
			began = at
		}
		if want := []time.Duration{30, 60, 120, 240, 480, 600, 600, 600, 600}; len(pauses) != len(want) {
			t.Errorf("pauses %v", pauses)
		} else {
			for i, p := range pauses {
				if p != want[i]*time.Second {
					t.Errorf("pause %d: %v, want %v", i, p, want[i]*time.Second)
				}
			}
		}
		if n := strings.Count(log.String(), "allows fewer"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log)
		}
		h.mu.Lock()
		h.takes, before = 6, len(h.dials)
		h.mu.Unlock()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if at := h.attempts(before); len(at) != 3 || at[2].Sub(at[0]) > 5*time.Second {
			t.Errorf("attempts at %v, want three close together", at)
		}
		if n := strings.Count(log.String(), "all connections again"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log)
		}
		cancel()
		waiting.Wait()
		if h.open != 6 {
			t.Errorf("%d open, want 6", h.open)
		}
	})
}

// A relay that goes away refuses one connection after the other. That says nothing of how many it allows.
func TestConnections_relayGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hub{takes: 4}
		all, log := h.plugs(4)
		openAll(t.Context(), all)
		time.Sleep(time.Minute)
		h.down = &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("refused")}
		for i, c := range all {
			c.backend.(*plug).open = false
			if err := c.Open(t.Context()); isParked(err) != (i < 3) || err == nil {
				t.Errorf("connection %d: %v", i, err)
			}
		}
		all[0].pool.held()
		h.down, h.open = nil, 0
		for i, err := range openAll(t.Context(), all) {
			if err != nil {
				t.Errorf("connection %d when the relay is back: %v", i, err)
			}
		}
		if log.Len() > 0 && strings.Contains(log.String(), "fewer") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// Silence is no refusal: unless other connections work meanwhile the relay is away.
func TestConnections_silence(t *testing.T) {
	t.Parallel()
	for _, works := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := &hub{takes: 2}
			all, _ := h.plugs(2)
			openAll(t.Context(), all)
			h.down = &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepGreet, Err: os.ErrDeadlineExceeded}
			all[0].backend.(*plug).open = false
			if works {
				time.AfterFunc(50*time.Millisecond, func() { all[0].pool.hasAccepted(1) })
			}
			if err := all[0].Open(t.Context()); isParked(err) != works {
				t.Errorf("while others work %v: %v", works, err)
			}
		})
	}
}
