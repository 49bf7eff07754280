package tasks

import (
	"slices"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// near reports whether d is about as long as want, on a busy machine.
func near(d, want time.Duration) bool { return d <= want && d > want-10*time.Second }

// Workers agree on the pauses after a refused login. Who may have a better password waits for the
// shortest one only.
func TestLogins_pauses(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	ctx := t.Context()
	worker := func() *logins {
		l := &logins{redis: s.Client(t)}
		l.of("shop at mx.example.com:587")
		l.start(ctx)
		return l
	}
	wait := func(l *logins, loggedIn bool) time.Duration {
		t.Helper()
		d, err := l.wait(ctx, loggedIn)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first, second := worker(), worker()
	if d := wait(first, false); d != 0 {
		t.Fatalf("the first login of all has to wait for %v", d)
	}
	var pauses []time.Duration
	for range 7 {
		pauses = append(pauses, first.wasRefused(ctx)/time.Second)
	}
	if want := []time.Duration{30, 60, 120, 240, 480, 600, 600}; !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v seconds", pauses, want)
	}
	later := worker()
	for name, tt := range map[string]struct {
		l        *logins
		loggedIn bool
		want     time.Duration
	}{
		"who was refused":               {first, false, 10 * time.Minute},
		"who was there already":         {second, false, 10 * time.Minute},
		"who has logged in before":      {second, true, 30 * time.Second},
		"who was started after that":    {later, false, 30 * time.Second},
		"who has been logged in, later": {later, true, 30 * time.Second},
	} {
		if d := wait(tt.l, tt.loggedIn); !near(d, tt.want) {
			t.Errorf("%s waits for %v, want %v", name, d, tt.want)
		}
	}
	later.worked(ctx)
	if d := wait(worker(), false); d != 0 {
		t.Errorf("right after a login has worked a new worker waits for %v", d)
	}
	if d := wait(first, false); d > 30*time.Second {
		t.Errorf("after a login has worked the others wait for %v, want 30 s at most", d)
	}
	if d := first.wasRefused(ctx); d != 30*time.Second {
		t.Errorf("the pause after that is %v, want 30 s again", d)
	}
}

// One worker tries at a time; the others wait until it is through.
func TestLogins_oneTries(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	a, b := &logins{redis: s.Client(t)}, &logins{redis: s.Client(t)}
	for _, l := range []*logins{a, b} {
		l.of("shop at mx.example.com:587")
		l.start(t.Context())
	}
	for name, end := range map[string]func(){
		"worked":  func() { a.worked(t.Context()) },
		"refused": func() { a.wasRefused(t.Context()) },
		"ended":   func() { a.ended(t.Context()) },
	} {
		if err := s.Client(t).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if d, err := a.wait(t.Context(), false); d != 0 || err != nil {
			t.Fatalf("%s: the first one waits for %v (%v)", name, d, err)
		}
		through := make(chan time.Duration, 1)
		go func() {
			d, _ := b.wait(t.Context(), false)
			through <- d
		}()
		select {
		case d := <-through:
			t.Errorf("%s: another one does not wait for the first, but %v", name, d)
		case <-time.After(2 * loginPoll):
			end()
			if d := <-through; (d > 0) != (name == "refused") {
				t.Errorf("%s: then it waits for %v", name, d)
			}
		}
	}
}

// Nothing in Redis is made of a password, or shows a name.
func TestLogins_secret(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	l := &logins{redis: s.Client(t)}
	l.of("shop at mx.example.com:587")
	l.start(t.Context())
	l.wasRefused(t.Context())
	keys, err := s.Client(t).Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || strings.Contains(keys[0], "shop") {
		t.Errorf("keys %q (%v)", keys, err)
	}
	if ttl := s.Client(t).TTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > loginsKept {
		t.Errorf("the key lives for %v", ttl)
	}
}
