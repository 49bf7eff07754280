package tasks

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// crowd is senders without a queue: as many as there are connections, which send messages one after the other while there
// is mail, to a relay that answers a message after latency, by how many are open.
type crowd struct {
	hub     *hub
	latency func(open int) time.Duration
	pool    *connections
	log     *syncBuffer
	mail    atomic.Bool
	turned  atomic.Pointer[chan struct{}] // closed when mail changes
	idle    atomic.Int64
	senders sync.WaitGroup
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

func newCrowd(base, most int, h *hub, latency func(open int) time.Duration, told ...Observer) *crowd {
	w := &crowd{hub: h, latency: latency, log: &syncBuffer{}}
	w.pool = newConnections("", nil, WorkerConfig{Observers: told}, zerolog.New(w.log))
	w.pool.growth = newGrowth(base, most)
	w.turned.Store(new(make(chan struct{})))
	w.mail.Store(true)
	return w
}

// has says whether there is mail from now on.
func (w *crowd) has(mail bool) {
	w.mail.Store(mail)
	close(*w.turned.Swap(new(make(chan struct{}))))
}

// run lets the crowd work until ctx ends.
func (w *crowd) run(ctx context.Context) {
	more := func() error {
		c := w.pool.add(&plug{dial: w.hub.dial}, false)
		w.senders.Go(func() { w.send(ctx, c) })
		return nil
	}
	for range w.pool.growth.base {
		_ = more()
	}
	w.pool.grow(ctx, func() (inHand, idle int) {
		if w.mail.Load() {
			inHand = 1000
		}
		return inHand, int(w.idle.Load())
	}, more)
	w.senders.Wait()
}

func (w *crowd) send(ctx context.Context, c *connection) {
	p := c.backend.(*plug)
	for {
		mayRest, turned := c.mayRest(), *w.turned.Load()
		if c.rests() {
			w.hub.hangUp(p)
			c.rest()
		}
		c.await(ctx, ctx)
		switch {
		case ctx.Err() != nil:
			w.hub.hangUp(p)
			return
		case !w.mail.Load():
			w.idle.Add(1)
			select {
			case <-ctx.Done():
			case <-mayRest:
			case <-turned:
			}
			w.idle.Add(-1)
			continue
		}
		if c.Open(ctx) == nil {
			time.Sleep(w.latency(w.hub.connections()))
			w.pool.hasAccepted(1)
		}
	}
}

func (h *hub) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

func (h *hub) hangUp(p *plug) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.open {
		p.open = false
		h.open--
	}
}

// refusals are how many attempts to connect were refused.
func (h *hub) refusals() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused
}

// Connections become more while they bring more, and no more of them than that.
func TestGrowth_rate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		most      int
		latency   func(open int) time.Duration
		low, high int // connections in the end
		peak      int
	}{
		{"a relay that is far away", 20, func(int) time.Duration { return 20 * time.Millisecond }, 20, 20, 20},
		{"one that is very far away", 20, func(int) time.Duration { return 3 * time.Second }, 20, 20, 20},
		{"times that differ", 20, func(int) time.Duration { return 50*time.Millisecond + rand.N(100*time.Millisecond) }, 20, 20, 20},
		{"a few more are allowed", 6, func(int) time.Duration { return 20 * time.Millisecond }, 6, 6, 6},
		{"none is", 4, func(int) time.Duration { return 20 * time.Millisecond }, 4, 4, 4},
		{"one whose processors are busy", 20, func(open int) time.Duration { return time.Duration(open) * 5 * time.Millisecond }, 4, 4, 8},
		{"one that gets slower", 20, func(open int) time.Duration { return time.Duration(open*open) * time.Millisecond }, 4, 4, 8},
		{"one that works on ten at once", 20, func(open int) time.Duration { return max(20, time.Duration(open)*2) * time.Millisecond }, 9, 12, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				now, peak, last := 4, 4, time.Now()
				grown := func(_ string, n, most int) {
					if n > now+1 || n > now && time.Since(last) < growEvery-time.Millisecond || most != tt.most {
						t.Errorf("%d connections of %d, %v after there were %d", n, most, time.Since(last), now)
					}
					now, peak, last = n, max(peak, n), time.Now()
				}
				w := newCrowd(4, tt.most, &hub{takes: 100}, tt.latency, Observer{Grown: grown})
				ctx, cancel := context.WithCancel(t.Context())
				w.senders.Go(func() {
					time.Sleep(45 * time.Second)
					if tt.low == 20 && tt.latency(1) > time.Second {
						time.Sleep(5 * time.Minute) // it takes so long until there is a rate
					}
					if n := w.hub.connections(); n < tt.low || n > tt.high || peak > tt.peak {
						t.Errorf("%d connections, and %d at most; want %d to %d and %d", n, peak, tt.low, tt.high, tt.peak)
					}
					cancel()
				})
				w.run(ctx)
				wantUp, wantBack := 0, 0
				if tt.high > 4 {
					wantUp = 1
				}
				if tt.peak > tt.high {
					wantUp, wantBack = 0, 1
				}
				if up, back := w.log.count("bring more"), w.log.count("bring too little"); up != wantUp || back != wantBack {
					t.Errorf("said %d times that more help and %d times that they do not; want %d and %d:\n%s", up, back, wantUp, wantBack, w.log.text.String())
				}
			})
		})
	}
}

// After a refusal there is one less, and no more are tried for a minute, then twice as long, up to an hour.
func TestGrowth_refused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(4, 20, &hub{takes: 10}, func(int) time.Duration { return time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		var refused []time.Time
		w.senders.Go(func() {
			for n := 0; len(refused) < 9; time.Sleep(time.Second) {
				if more := w.hub.refusals(); more > n {
					refused = append(refused, time.Now())
					n = more
				}
			}
			time.Sleep(30 * time.Minute) // in which there are as many as before
			if n := w.hub.connections(); n != 9 {
				t.Errorf("%d connections, want one less than are allowed", n)
			}
			cancel()
		})
		w.run(ctx)
		var pauses []int
		for i := range refused[1:] {
			pauses = append(pauses, int(refused[i+1].Sub(refused[i]).Minutes()))
		}
		if want := []int{1, 2, 4, 8, 16, 32, 60, 60}; !slices.Equal(pauses, want) {
			t.Errorf("refused after %v minutes, want %v", pauses, want)
		}
		if n := w.hub.refusals(); n != 9 || w.log.count("refuses a further connection") != 9 || w.log.count("allows fewer") > 0 {
			t.Errorf("%d refusals, want 9 and a line for each:\n%s", n, w.log.text.String())
		}
	})
}

// Several workers share what a relay allows: each has some, and none tries again and again.
func TestGrowth_workers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hub{takes: 30}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var workers []*crowd
		for i := range 4 {
			w := newCrowd(4, 20, h, func(int) time.Duration { return time.Second })
			workers = append(workers, w)
			all.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Second)
				w.run(ctx)
			})
		}
		time.Sleep(10 * time.Minute)
		before := h.refusals()
		for range 6 {
			time.Sleep(10 * time.Minute)
			if n := h.connections(); n < 20 || n > 30 {
				t.Errorf("%d connections of 30", n)
			}
			for i, w := range workers {
				w.pool.mu.Lock()
				if n := w.pool.countShared(); n < 1 {
					t.Errorf("worker %d has %d connections", i, n)
				}
				w.pool.mu.Unlock()
			}
		}
		if n := h.refusals() - before; n > 60 {
			t.Errorf("%d refusals in an hour", n)
		}
		cancel()
		all.Wait()
	})
}

// Without mail there are soon as few as at first. They grow again to what was good without a pause.
func TestGrowth_idle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(4, 12, &hub{takes: 100}, func(int) time.Duration { return 20 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		want := func(when string, n int) {
			t.Helper()
			synctest.Wait()
			if got := w.hub.connections(); got != n {
				t.Errorf("%s: %d connections, want %d", when, got, n)
			}
		}
		w.senders.Go(func() {
			time.Sleep(20 * time.Second)
			want("with mail", 12)
			w.has(false)
			time.Sleep(25 * time.Second)
			want("soon after it", 12)
			time.Sleep(20 * time.Second)
			want("without mail", 4)
			time.Sleep(24 * time.Hour)
			want("a day later", 4)
			w.has(true)
			time.Sleep(20 * time.Second)
			want("with mail again", 12)
			w.pool.held()
			time.Sleep(2 * time.Second)
			want("after the relay took no mail", 4)
			time.Sleep(50 * time.Second)
			want("not a minute later", 4)
			time.Sleep(30 * time.Second)
			want("later", 12)
			cancel()
		})
		w.run(ctx)
	})
}

// A backend that cannot be made is no reason to go on without those that there are.
func TestGrowth_noBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(1, 3, &hub{takes: 100}, func(int) time.Duration { return 20 * time.Millisecond })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c := w.pool.add(&plug{dial: w.hub.dial}, false)
		w.senders.Go(func() { w.send(ctx, c) })
		asked := 0
		w.pool.grow(ctx, func() (inHand, idle int) { return 1000, 0 }, func() error {
			asked++
			return errors.New("no certificate")
		})
		w.senders.Wait()
		if asked != 1 || w.log.count("no certificate") != 1 {
			t.Errorf("asked for a backend %d times in half a minute, want once:\n%s", asked, w.log.text.String())
		}
	})
}
