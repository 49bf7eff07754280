package tasks

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestBreaker_closed(t *testing.T) {
	t.Parallel()
	b := newBreaker()
	if probe, ok := b.wait(t.Context()); probe || !ok {
		t.Errorf("wait at a breaker that is not tripped = %v, %v, want false, true", probe, ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := b.wait(ctx); ok {
		t.Error("wait after its context ended: ok, want not")
	}
}

// The pauses between probes double from a second to a minute, one waiter at a time is
// let through, and all go on when the relay is back.
func TestBreaker_probes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker()
		defer b.stop()
		down := errors.New("connection refused")
		if !b.trip(down, false, 0) {
			t.Error("first trip: false, want true")
		}
		if b.trip(down, false, 0) {
			t.Error("second trip by another sender: true, want false")
		}
		others := make(chan bool)
		for range 3 {
			go func() {
				probe, ok := b.wait(t.Context())
				for probe {
					b.trip(down, true, 0)
					probe, ok = b.wait(t.Context())
				}
				others <- ok
			}()
		}
		var pauses []time.Duration
		for last := time.Now(); len(pauses) < 40; {
			synctest.Wait()
			time.Sleep(100 * time.Millisecond) // fake time
			b.mu.Lock()
			pause := b.pause
			b.mu.Unlock()
			if len(pauses) == 0 || pause != pauses[len(pauses)-1] {
				pauses = append(pauses, pause)
			}
			if time.Since(last) > 10*time.Minute {
				break
			}
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60}
		if len(pauses) != len(want) {
			t.Fatalf("pauses = %v, want %v seconds", pauses, want)
		}
		for i, p := range pauses {
			if p != want[i]*time.Second {
				t.Errorf("pause %d = %v, want %v", i, p, want[i]*time.Second)
			}
		}
		if !errors.Is(b.held(), down) {
			t.Errorf("held = %v, want %v", b.held(), down)
		}
		b.reset()
		for range 3 {
			if !<-others {
				t.Error("a waiter was not let through")
			}
		}
		if !errors.Is(b.held(), down) {
			t.Errorf("held = %v when nothing has been judged yet, want %v", b.held(), down)
		}
		if !b.works() || b.works() || b.held() != nil {
			t.Error("the trouble did not end once, with the first message that was judged")
		}
	})
}

// A relay that says how long to wait is not probed before that, whichever sender has heard it and whatever the others have.
func TestBreaker_retryAfter(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) error {
		return fmt.Errorf("mine: %w", &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Code: 429, RetryAfter: d})
	}
	down := errors.New("connection refused")
	for _, tt := range []struct {
		name  string
		trips func(b *breaker)
		want  time.Duration
	}{
		{"at first", func(b *breaker) { b.trip(after(time.Minute), false, 0) }, time.Minute},
		{"shorter than our pause", func(b *breaker) { b.trip(after(time.Millisecond), false, 0) }, probeMin},
		{"by a second sender", func(b *breaker) { b.trip(down, false, 0); b.trip(after(time.Minute), false, 0) }, time.Minute},
		{"not by a second sender", func(b *breaker) { b.trip(after(time.Minute), false, 0); b.trip(down, false, 0) }, time.Minute},
		{"shorter by a second sender", func(b *breaker) {
			b.trip(after(time.Minute), false, 0)
			b.trip(after(time.Second), false, 0)
		}, time.Minute},
		{"to a probe", func(b *breaker) {
			b.trip(down, false, 0)
			b.wait(context.Background())
			b.trip(after(time.Minute), true, 0)
		}, probeMin + time.Minute},
		{"and logins wait longer", func(b *breaker) { b.trip(after(time.Minute), false, time.Hour) }, time.Hour},
		{"and logins wait for less", func(b *breaker) { b.trip(after(time.Minute), false, time.Second) }, time.Minute},
		{"absurd", func(b *breaker) { b.trip(after(1000*time.Hour), false, 0) }, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker()
				defer b.stop()
				begin := time.Now()
				tt.trips(b)
				if probe, ok := b.wait(t.Context()); !probe || !ok {
					t.Errorf("wait = %v, %v, want a probe", probe, ok)
				}
				if got := time.Since(begin); got != tt.want {
					t.Errorf("probed after %v, want %v", got, tt.want)
				}
				time.Sleep(2 * time.Hour) // in fake time
				select {
				case <-b.probe:
					t.Error("a second probe is due while the first is under way")
				default:
				}
			})
		})
	}
}

// A relay that greets us and takes nothing is not hammered: only an accepted message
// makes the pauses short again.
func TestBreaker_pauseAfterReset(t *testing.T) {
	t.Parallel()
	b := newBreaker()
	defer b.stop()
	b.trip(errors.New("421"), false, 0)
	if b.works() {
		t.Error("a relay that is known to take nothing works")
	}
	b.reset()
	if b.trip(errors.New("421"), false, 0) {
		t.Error("the same trouble began twice")
	}
	if b.pause != 2*probeMin {
		t.Errorf("pause after a useless reset = %v, want %v", b.pause, 2*probeMin)
	}
	b.reset()
	b.accepted()
	b.trip(errors.New("421"), false, 0)
	if b.pause != probeMin {
		t.Errorf("pause after an accepted message = %v, want %v", b.pause, probeMin)
	}
}

// A relay is held when it is the relay that refuses: before it has heard of a message, in
// silence, when it says goodbye or wants a login, and when it puts off several different
// messages in a row. A message that is put off while others pass is put off alone.
func TestBreaker_relayRefuses(t *testing.T) {
	t.Parallel()
	at := func(step mailer.Step, code int) error {
		return &mailer.SendError{Class: mailer.Unavailable, Step: step, Code: code}
	}
	greeting, silence := at(mailer.StepGreet, 421), at(mailer.StepMail, 0)
	tired, slower, login := at(mailer.StepEnd, 421), at(mailer.StepMail, 454), at(mailer.StepMail, 530)
	recipient := at(mailer.StepRcpt, 421)
	type event struct {
		name string // of the message; "": some message is accepted
		err  error
		want bool
	}
	accepted := event{}
	for name, events := range map[string][]event{
		"not of a message":               {{"a", greeting, true}, accepted, {"a", greeting, true}, {"a", errors.New("no relay"), true}},
		"silence":                        {accepted, {"a", silence, true}},
		"goodbye":                        {{"a", tired, true}},
		"goodbye to one while more pass": {accepted, {"a", tired, false}, accepted, {"a", tired, false}},
		"both known from before":         {accepted, {"a", tired, false}, accepted, {"b", tired, false}, accepted, {"a", tired, false}, {"b", tired, false}, {"c", tired, false}, {"d", tired, true}},
		"goodbye to two in a row":        {accepted, {"a", tired, false}, {"b", tired, true}},
		"goodbye to the same one again":  {{"a", tired, true}, {"a", tired, false}, {"a", tired, false}},
		"login":                          {{"a", login, true}},
		"one put off":                    {{"a", slower, false}, {"a", slower, false}, {"a", slower, false}},
		"several in a row":               {{"a", slower, false}, {"b", slower, false}, {"c", slower, true}, {"a", slower, true}, {"d", slower, true}},
		"several, others pass":           {{"a", slower, false}, {"b", slower, false}, accepted, {"c", slower, false}, accepted, {"d", slower, false}},
		"goodbye at a recipient":         {{"a", recipient, false}, {"a", recipient, false}},
		"at several recipients":          {{"a", recipient, false}, {"b", recipient, false}, {"c", recipient, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBreaker()
			for i, e := range events {
				if e.name == "" {
					b.accepted()
					continue
				}
				got := b.relayRefuses(e.name, e.err)
				if got != e.want {
					t.Errorf("event %d, %s: %v, want %v", i, e.name, got, e.want)
				}
				if got {
					b.passes = false // as after trip
				}
			}
		})
	}
}
