package webhook

import (
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/events"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		failures int
		most     time.Duration
	}{
		{1, 5 * time.Second}, {2, 10 * time.Second}, {3, 20 * time.Second}, {7, 5 * time.Minute}, {20, 5 * time.Minute}, {1 << 40, 5 * time.Minute},
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := backoff(tt.failures, longestPause)
			if d < tt.most/2 || d > tt.most {
				t.Errorf("after %d failures %v, want %v to %v", tt.failures, d, tt.most/2, tt.most)
			}
			seen[d] = true
		}
		if len(seen) < 90 {
			t.Errorf("after %d failures only %d different pauses of 100", tt.failures, len(seen))
		}
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Now()
	p := newPace(16)
	now := start
	fail := func(slow bool, after time.Duration) {
		began := now
		now = now.Add(time.Millisecond)
		p.failed(began, now, failure{slow: slow, after: after})
	}
	if p.failed(now, now, failure{known: true}); p.room(now, 0) != 16 {
		t.Error("an event that has failed before makes it slower")
	}
	for _, want := range []int{8, 4, 2, 1} {
		if fail(false, 0); p.room(now, 0) != want || p.failing() {
			t.Fatalf("room for %d, want %d; failing %v", p.room(now, 0), want, p.failing())
		}
	}
	before := now
	fail(false, 0)
	if !p.failing() || p.room(now, 0) != 0 || p.until.Sub(now) > firstPause {
		t.Fatalf("room for %d, pause of %v", p.room(now, 0), p.until.Sub(now))
	}
	// What was under way before the pause says nothing new.
	first := p.until
	p.failed(before, now.Add(time.Millisecond), failure{})
	p.succeeded(before)
	if p.until != first || !p.failing() {
		t.Error("a post from before the pause has changed it")
	}
	// But what it asks for counts.
	p.failed(before, now.Add(time.Millisecond), failure{after: time.Minute})
	if d := p.until.Sub(now); d < time.Minute || d > 67*time.Second {
		t.Errorf("pause of %v after Retry-After: 60", d)
	}
	now = p.until
	if p.room(now, 0) != 1 || p.room(now, 1) != 0 {
		t.Error("not one post after the pause")
	}
	p.failed(now, now, failure{known: true})
	if d := p.until.Sub(now); d < firstPause || d > 2*firstPause {
		t.Errorf("second pause %v", d)
	}
	now = p.until
	for want := 2; want <= 16; want++ {
		if p.succeeded(now); p.room(now, 0) != want || p.failing() {
			t.Fatalf("room for %d, want %d", p.room(now, 0), want)
		}
	}
	if p.succeeded(now); p.room(now, 0) != 16 {
		t.Errorf("room for %d", p.room(now, 0))
	}
	// Who says that there are too many gets a pause at once.
	if fail(true, 0); !p.failing() || p.room(now, 0) != 0 || p.width != 1 {
		t.Errorf("room for %d", p.room(now, 0))
	}
	if fail(true, 1000*time.Hour); p.until.Sub(now) > mostRetryAfter*11/10 {
		t.Errorf("pause of %v", p.until.Sub(now))
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "90": 90 * time.Second, "-5": 0, "1.5": 0, "soon": 0, "99999999999999999999": 2147483647 * time.Second,
		"Fri, 27 Nov 2026 12:01:30 GMT": 90 * time.Second, "Fri, 27 Nov 2026 11:00:00 GMT": 0, "Friday, 27-Nov-26 12:01:30 GMT": 90 * time.Second,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
}

func TestAhead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 300_000_000, time.UTC)
	for date, want := range map[string]time.Duration{
		"": 0, "now": 0, "Fri, 27 Nov 2026 12:00:59 GMT": 0, "Fri, 27 Nov 2026 12:10:00 GMT": 10 * time.Minute, "Fri, 27 Nov 2026 11:53:00 GMT": -7 * time.Minute,
	} {
		if got := ahead(date, now); got != want {
			t.Errorf("Date %q: %v, want %v", date, got, want)
		}
	}
	for want, e := range map[string]*StatusError{
		"HTTP 400 Bad Request: Message timestamp too old (its clock is 10m0s ahead of ours)":   {400, "Message timestamp too old", 10 * time.Minute},
		"HTTP 403 Forbidden (its clock is 7m0s behind ours)":                                   {403, "", -7 * time.Minute},
		"HTTP 301 Moved Permanently; redirects are not followed: set the URL that it leads to": {301, "moved", 0},
		"HTTP 499: gone": {499, "gone", 0},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

func TestHand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := newHand()
	items := map[string]*item{}
	for n, e := range someEvents(5) {
		e.At = now.Add(-time.Duration(n) * time.Minute)
		items[e.ID] = &item{event: e}
		h.add(items[e.ID])
		h.add(&item{event: e}) // handed out again
	}
	if len(h.all) != 5 || h.ready(now) != 5 {
		t.Fatalf("%d in hand, %d due", len(h.all), h.ready(now))
	}
	next := func(now time.Time) string {
		it := h.next(now)
		if it == nil {
			return ""
		}
		if it != items[it.event.ID] {
			t.Error("the second one of an event is in hand")
		}
		return it.event.ID
	}
	h.wait(h.next(now), now.Add(2*time.Second)) // 0
	h.wait(h.next(now), now.Add(time.Second))   // 1
	h.wait(h.next(now), now.Add(time.Second))   // 2
	h.remove(h.next(now))                       // 3
	if at, ok := h.wakes(); !ok || !at.Equal(now.Add(time.Second)) {
		t.Errorf("wakes at %v, %v", at, ok)
	}
	var got []string
	for _, at := range []time.Duration{0, 0, time.Second, time.Second, time.Second, 2 * time.Second, 2 * time.Second} {
		got = append(got, next(now.Add(at)))
	}
	for i, want := range []string{"evt_4", "", "evt_1", "evt_2", "", "evt_0", ""} {
		if got[i] != want {
			t.Fatalf("in the order %q", got)
		}
	}
	if _, ok := h.wakes(); ok {
		t.Error("something waits")
	}
	items["evt_4"].settled = true
	if !h.oldest().Equal(now.Add(-2 * time.Minute)) {
		t.Errorf("the oldest is of %v", h.oldest())
	}
	h.wait(items["evt_1"], now.Add(time.Hour))
	h.wait(items["evt_2"], now.Add(time.Hour))
	h.hurry(func(it *item) bool { return it.event.ID == "evt_2" })
	if next(now) != "evt_2" || next(now) != "" {
		t.Error("not the right one was hurried")
	}
}

// The events of a message for a recipient wait for each other, until one has failed.
func TestHand_order(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := newHand()
	for _, id := range []string{"a1", "b1", "a2", "a3", "b2"} {
		h.add(&item{event: events.Event{ID: id, EmailID: id[:1], Recipient: "ann@example.com"}})
	}
	h.add(&item{event: events.Event{ID: "a4", EmailID: "a", Recipient: "bob@example.com"}})
	var out []*item
	next := func() (id string) {
		if it := h.next(now); it != nil {
			out, id = append(out, it), it.event.ID
		}
		return id
	}
	if a, b, c, none := next(), next(), next(), next(); a != "a1" || b != "b1" || c != "a4" || none != "" {
		t.Fatalf("%s %s %s %s", a, b, c, none)
	}
	h.remove(out[0])
	if got := next(); got != "a2" {
		t.Errorf("%q behind a1", got)
	}
	h.wait(out[1], now.Add(time.Minute)) // b1 has failed
	if got := next(); got != "b2" {
		t.Errorf("%q behind b1", got)
	}
	h.remove(out[3])
	if got := next(); got != "a3" {
		t.Errorf("%q behind a2", got)
	}
	h.remove(out[5])
	h.remove(out[4])
	h.remove(out[2])
	h.remove(h.next(now.Add(time.Minute)))
	if len(h.all)+len(h.last)+len(h.due)+len(h.later) != 0 {
		t.Errorf("left: %+v", h)
	}
}
