package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// network answers posts without a network, so that time may be that of a test.
type network struct {
	mu     sync.Mutex
	answer func(id string, before int) *http.Response // nil: the connection fails
	takes  func(id string) time.Duration              // nil: no time
	posts  []onWire
	tries  map[string]int // by ID
}

type onWire struct {
	id string
	at time.Time
}

func (w *network) RoundTrip(r *http.Request) (*http.Response, error) {
	id := written(r.Header, "webhook-id")
	if w.takes != nil {
		select {
		case <-time.After(w.takes(id)):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries == nil {
		w.tries = map[string]int{}
	}
	before := w.tries[id]
	w.tries[id]++
	w.posts = append(w.posts, onWire{id, time.Now()})
	if response := w.answer(id, before); response != nil {
		return response, nil
	}
	return nil, errors.New("connection refused")
}

// times are when an event was posted, since start.
func (w *network) times(id string, start time.Time) (all []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.posts {
		if p.id == id {
			all = append(all, p.at.Sub(start))
		}
	}
	return all
}

func (w *network) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.posts)
}

func status(code int, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(""))}
}

// simulate runs a dispatcher for one endpoint in a test's own time, and do beside it.
func simulate(t *testing.T, cfg Config, from *memory, answer func(id string, before int) *http.Response, do func(d *Dispatcher, w *network, log *buffer)) {
	t.Helper()
	simulateOn(t, &network{answer: answer}, cfg, from, do)
}

func simulateOn(t *testing.T, w *network, cfg Config, from *memory, do func(d *Dispatcher, w *network, log *buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &buffer{}
		logger := zerolog.New(log)
		from.more = make(chan struct{}) // of this time
		for i := range from.events {
			from.events[i].At = time.Now()
		}
		cfg.Targets, cfg.Logger, cfg.source = []target.Target{to(t, "https://example.com/")}, &logger, func(string) source { return from }
		d, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range d.endpoints {
			r.client = &http.Client{Transport: w}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Run(ctx)
		}()
		do(d, w, log)
		cancel()
		<-done
		if !from.closed {
			t.Error("the source is not closed")
		}
	})
}

// An event that an endpoint refuses is tried again after growing pauses, while the others are taken.
func TestEndpoint_backoff(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(3)...)
	start := time.Time{}
	simulate(t, Config{}, source, func(id string, _ int) *http.Response {
		if id == "evt_1" {
			return status(http.StatusBadRequest)
		}
		return status(http.StatusOK)
	}, func(d *Dispatcher, w *network, log *buffer) {
		start = time.Now()
		for n := range 6 * 60 {
			time.Sleep(time.Minute)
			source.add(events.Event{ID: "other" + time.Duration(n).String(), At: time.Now()})
		}
		synctest.Wait()
		times := w.times("evt_1", start)
		if times[0] != 0 || len(times) < 13 || len(times) > 22 { // 5 s and twice as much each time makes 10 in the first hour and a half, then each hour
			t.Fatalf("tried at %v", times)
		}
		for i, at := range times[1:] {
			most := min(firstPause<<i, longestRetry)
			if pause := at - times[i]; pause < most/2 || pause > most+time.Second {
				t.Errorf("pause %d is %v, want %v to %v", i+1, pause, most/2, most)
			}
		}
		if s := d.State()[0]; s.Delivered != 2+6*60 || s.Waiting != 1 || s.Failed != int64(len(times)) || !s.FailingSince.IsZero() {
			t.Errorf("%+v", s)
		}
		if strings.Contains(log.String(), "takes no events") {
			t.Errorf("%s", log)
		}
	})
}

// An endpoint that is away, for longer than an event may be old, is left alone, hears of what is new soon after it is back, and misses nothing.
func TestEndpoint_away(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(2000)...)
	back := time.Date(2000, 1, 5, 4, 0, 0, 0, time.UTC) // the time of a test begins with that year
	simulate(t, Config{}, source, func(string, int) *http.Response {
		if time.Now().Before(back) {
			return nil
		}
		return status(http.StatusOK)
	}, func(d *Dispatcher, w *network, log *buffer) {
		start := time.Now()
		time.Sleep(100*time.Hour - time.Nanosecond)
		synctest.Wait()
		// The first posts, and then one each 2.5 to 5 minutes.
		if n := w.count(); n < 100*12 || n > 16+100*24+10 {
			t.Errorf("%d tries in 100 hours", n)
		}
		s := d.State()[0]
		if s.FailingSince.Sub(start) > time.Minute || s.NextTry.IsZero() || s.Delivered != 0 || source.ackedIDs() != 0 || s.Oldest.IsZero() {
			t.Errorf("%+v", s)
		}
		if s.Waiting > 100 { // what was tried is tried again, before anything new
			t.Errorf("%d events in memory", s.Waiting)
		}
		time.Sleep(longestPause)
		synctest.Wait()
		if s := d.State()[0]; s.Delivered != 2000 || s.Waiting != 0 || s.GivenUp != 0 || !s.FailingSince.IsZero() || !s.NextTry.IsZero() || source.ackedIDs() != 2000 {
			t.Errorf("%+v, %d acknowledged", s, source.ackedIDs())
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "takes events again") {
			t.Errorf("%d lines in the log: %s", lines, log)
		}
	})
}

// Retry-After is obeyed by all posts to the endpoint, whatever the answer is.
func TestEndpoint_retryAfter(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()
			source := newMemory(someEvents(500)...)
			calls := 0
			var begun atomic.Int64
			net := &network{
				answer: func(string, int) *http.Response {
					if calls++; calls == 40 {
						return status(code, "Retry-After", "600")
					}
					return status(http.StatusOK)
				},
				// No two end at once: where no time passes, some begin after the answer and before it is read.
				takes: func(string) time.Duration { return time.Millisecond + time.Duration(begun.Add(1))*time.Microsecond },
			}
			simulateOn(t, net, Config{}, source, func(d *Dispatcher, w *network, _ *buffer) {
				time.Sleep(600*time.Second - time.Nanosecond)
				synctest.Wait()
				before := w.count()
				if before < 40 || before > 40+16 {
					t.Errorf("%d posts before the time was over", before)
				}
				if s := d.State()[0]; s.NextTry.IsZero() {
					t.Errorf("%+v", s)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if source.ackedIDs() != 500 {
					t.Errorf("%d acknowledged", source.ackedIDs())
				}
			})
		})
	}
}

// 429 without Retry-After slows down at once.
func TestEndpoint_tooMany(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(500)...)
	simulate(t, Config{Concurrency: 1}, source, func(_ string, before int) *http.Response {
		if before == 0 {
			return status(http.StatusTooManyRequests)
		}
		return status(http.StatusOK)
	}, func(_ *Dispatcher, w *network, _ *buffer) {
		time.Sleep(firstPause/2 - time.Nanosecond)
		synctest.Wait()
		if n := w.count(); n != 1 {
			t.Errorf("%d posts", n)
		}
	})
}

// An event that is refused for too long is given up, and acknowledged: it was not lost in silence.
func TestEndpoint_givesUp(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(30)...)
	var tries []Try
	cfg := Config{MaxAge: 24 * time.Hour, Observers: []Observer{{Tried: func(try Try) { tries = append(tries, try) }}}}
	simulate(t, cfg, source, func(id string, _ int) *http.Response {
		if id < "evt_2" { // of 0 to 29: 12 events
			return status(http.StatusUnprocessableEntity)
		}
		return status(http.StatusOK)
	}, func(d *Dispatcher, w *network, log *buffer) {
		start := time.Now()
		time.Sleep(24*time.Hour - time.Nanosecond)
		synctest.Wait()
		if source.ackedIDs() != 18 {
			t.Errorf("%d acknowledged", source.ackedIDs())
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if s := d.State()[0]; source.ackedIDs() != 30 || s.GivenUp != 12 || s.Delivered != 18 || s.Waiting != 0 {
			t.Errorf("%+v, %d acknowledged", s, source.ackedIDs())
		}
		if n := strings.Count(log.String(), "given up"); n < 1 || n > 3 {
			t.Errorf("logged %d times: %s", n, log)
		}
		times := w.times("evt_1", start)
		if last := times[len(times)-1]; last < 24*time.Hour || last > 26*time.Hour {
			t.Errorf("last try at %v", last)
		}
		given := slices.DeleteFunc(slices.Clone(tries), func(try Try) bool { return try.Result != GivenUp })
		if len(given) != 12 || given[0].Code != http.StatusUnprocessableEntity || given[0].Err == nil || given[0].Number < 20 {
			t.Errorf("%+v", given)
		}
	})
}

// What was delivered and could not be acknowledged is acknowledged later, and is not posted again.
func TestEndpoint_acknowledgesLater(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(10)...)
	source.refuse, source.fail = 25, 3
	simulate(t, Config{}, source, func(string, int) *http.Response { return status(http.StatusOK) }, func(d *Dispatcher, w *network, log *buffer) {
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := d.State()[0]; w.count() != 10 || source.ackedIDs() != 10 || s.Delivered != 10 || s.Waiting != 0 {
			t.Errorf("%d posts, %d acknowledged, %+v", w.count(), source.ackedIDs(), s)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "cannot be read") || !strings.Contains(log.String(), "can be read again") {
			t.Errorf("%s", log)
		}
	})
}

// What has ended is counted once: it is neither under way nor waiting when an observer hears of it.
func TestEndpoint_counts(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(100)...)
	var d atomic.Pointer[Dispatcher]
	var heard int64
	cfg := Config{Concurrency: 1, Observers: []Observer{{Tried: func(Try) {
		heard++
		if s := d.Load().State()[0]; s.Delivered != heard || s.UnderWay != 0 || s.Waiting < 0 {
			t.Errorf("at try %d: %+v", heard, s)
		}
	}}}}
	simulateOn(t, &network{
		answer: func(string, int) *http.Response { return status(http.StatusOK) },
		takes:  func(string) time.Duration { return time.Second }, // the first one ends when d is known
	}, cfg, source, func(started *Dispatcher, _ *network, _ *buffer) {
		d.Store(started)
		time.Sleep(time.Hour)
		synctest.Wait()
		if heard != 100 {
			t.Errorf("heard of %d tries", heard)
		}
	})
}

// However many events an endpoint refuses, no more are in memory than that.
func TestEndpoint_mostInHand(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(8 * mostInHand)...)
	simulate(t, Config{}, source, func(id string, before int) *http.Response {
		if before < 6 && strings.HasSuffix(id, "7") {
			return status(http.StatusBadRequest)
		}
		if before < 8 && strings.HasSuffix(id, "5") {
			return status(http.StatusInternalServerError)
		}
		return status(http.StatusOK)
	}, func(d *Dispatcher, _ *network, _ *buffer) {
		for range 12 * 60 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := d.State()[0]; s.Waiting+s.UnderWay > mostInHand {
				t.Fatalf("%+v", s)
			}
		}
		if source.ackedIDs() != 8*mostInHand {
			t.Errorf("%d acknowledged, %+v", source.ackedIDs(), d.State())
		}
	})
}

// Who sends a SIGHUP has mended it, and need not wait for the end of a pause.
func TestEndpoint_renewed(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(50)...)
	var mended atomic.Bool
	simulate(t, Config{}, source, func(string, int) *http.Response {
		if mended.Load() {
			return status(http.StatusOK)
		}
		return status(http.StatusTooManyRequests, "Retry-After", "86400")
	}, func(d *Dispatcher, w *network, _ *buffer) {
		time.Sleep(time.Hour)
		synctest.Wait()
		mended.Store(true)
		if err := d.Reload(d.cfg.Targets); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := d.State()[0]; source.ackedIDs() != 50 || !s.NextTry.IsZero() || !s.FailingSince.IsZero() {
			t.Errorf("%d acknowledged, %+v", source.ackedIDs(), s)
		}
		_ = w
	})
}

// What is under way when the dispatcher ends is answered and acknowledged; what takes too long is cut off, and not acknowledged.
func TestEndpoint_end(t *testing.T) {
	t.Parallel()
	source := newMemory(someEvents(4)...)
	w := &network{
		answer: func(string, int) *http.Response { return status(http.StatusOK) },
		takes: func(id string) time.Duration {
			if id == "evt_0" {
				return 50 * time.Second
			}
			return 70 * time.Second
		},
	}
	var end *Dispatcher
	simulateOn(t, w, Config{Concurrency: 2, Timeout: time.Hour, Grace: time.Minute}, source, func(d *Dispatcher, _ *network, _ *buffer) {
		time.Sleep(time.Second)
		end = d
	})
	if len(source.acked) != 1 || source.acked["evt_0"] != 1 || w.count() != 1 {
		t.Errorf("acknowledged %v after %d posts", source.acked, w.count())
	}
	if s := end.State()[0]; s.Failed != 0 || s.Delivered != 1 || s.UnderWay != 0 {
		t.Errorf("%+v", s)
	}
}
