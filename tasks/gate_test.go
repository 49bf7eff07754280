package tasks

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestGate_open(t *testing.T) {
	t.Parallel()
	g := newGate()
	if probe, ok := g.wait(t.Context()); probe || !ok {
		t.Errorf("wait at an open gate = %v, %v, want false, true", probe, ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := g.wait(ctx); ok {
		t.Error("wait after its context ended: ok, want not")
	}
}

// The pauses between probes double from a second to a minute, one waiter at a time is
// let through, and all go on when the relay is back.
func TestGate_probes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		defer g.stop()
		down := errors.New("connection refused")
		if !g.shut(down, false) {
			t.Error("first shut: false, want true")
		}
		if g.shut(down, false) {
			t.Error("second shut by another sender: true, want false")
		}
		others := make(chan bool)
		for range 3 {
			go func() {
				probe, ok := g.wait(t.Context())
				for probe {
					g.shut(down, true)
					probe, ok = g.wait(t.Context())
				}
				others <- ok
			}()
		}
		var pauses []time.Duration
		for last := time.Now(); len(pauses) < 40; {
			synctest.Wait()
			time.Sleep(100 * time.Millisecond) // fake time
			g.mu.Lock()
			pause := g.pause
			g.mu.Unlock()
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
		if !errors.Is(g.held(), down) {
			t.Errorf("held = %v, want %v", g.held(), down)
		}
		g.open()
		for range 3 {
			if !<-others {
				t.Error("a waiter was not let through")
			}
		}
		if !errors.Is(g.held(), down) {
			t.Errorf("held = %v when nothing has been judged yet, want %v", g.held(), down)
		}
		if !g.works() || g.works() || g.held() != nil {
			t.Error("the trouble did not end once, with the first message that was judged")
		}
	})
}

// A relay that greets us and takes nothing is not hammered: only an accepted message
// makes the pauses short again.
func TestGate_pauseAfterOpen(t *testing.T) {
	t.Parallel()
	g := newGate()
	defer g.stop()
	g.shut(errors.New("421"), false)
	if g.works() {
		t.Error("a relay that is known to take nothing works")
	}
	g.open()
	if g.shut(errors.New("421"), false) {
		t.Error("the same trouble began twice")
	}
	if g.pause != 2*probeMin {
		t.Errorf("pause after a useless opening = %v, want %v", g.pause, 2*probeMin)
	}
	g.open()
	g.accepted()
	g.shut(errors.New("421"), false)
	if g.pause != probeMin {
		t.Errorf("pause after an accepted message = %v, want %v", g.pause, probeMin)
	}
}
