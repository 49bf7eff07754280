package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/rate"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func limits(t testing.TB, text string) rate.Limits {
	t.Helper()
	l, err := rate.ParseLimits(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// book keeps what Redis has granted, by its own clock.
type book struct {
	mu      sync.Mutex
	grants  []Answer
	answers []Answer
}

func (b *book) told(a Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = append(b.answers, a)
	if a.Messages > 0 {
		b.grants = append(b.grants, a)
	}
}

// check holds every span of that length to what there may be in it.
func (b *book) check(t *testing.T, span time.Duration, most int) (all int, took time.Duration) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortFunc(b.grants, func(a, c Answer) int { return a.At.Add(a.Wait).Compare(c.At.Add(c.Wait)) })
	first := 0
	inSpan := 0
	for _, g := range b.grants {
		all += g.Messages
		inSpan += g.Messages
		for at := g.At.Add(g.Wait); !b.grants[first].At.Add(b.grants[first].Wait).After(at.Add(-span)); first++ {
			inSpan -= b.grants[first].Messages
		}
		if inSpan > most {
			t.Errorf("%d messages within %v, and %d are the most", inSpan, span, most)
			break
		}
	}
	if n := len(b.grants); n > 0 {
		took = b.grants[n-1].At.Sub(b.grants[0].At)
	}
	return all, took
}

// asked is how long somebody asked, or waited because he was told to. Where more time passes between two answers the machine stood still.
func (b *book) asked() (all time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortFunc(b.answers, func(a, c Answer) int { return a.At.Compare(c.At) })
	for i := 1; i < len(b.answers); i++ {
		before := b.answers[i-1]
		all += min(b.answers[i].At.Sub(before.At), before.Wait+5*time.Millisecond)
	}
	return all
}

// Workers together have the rate, as evenly as one round trip for several messages lets them, and not more.
func TestLimiter_Take(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	const perSecond = 1000
	var b book
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		l := New(client, Config{Mailer: "m", Rates: rate.Rates{Messages: limits(t, "1000/s")}, Told: b.told})
		for range 4 {
			wg.Go(func() {
				for {
					if _, _, err := l.Take(ctx, nil, 40, nil, false); err != nil {
						return
					}
				}
			})
		}
	}
	wg.Wait()
	all, took := b.check(t, time.Second, perSecond*105/100+1)
	if want := perSecond * took.Seconds(); float64(all) > want+50 {
		t.Errorf("%d messages in %v, more than there may be", all, took)
	}
	asked := b.asked()
	if float64(all) < perSecond*asked.Seconds()/2 {
		t.Errorf("only %d messages in %v", all, asked)
	}
	t.Logf("%d messages in %v, of which %v counts, %d round trips", all, took, asked, len(b.answers))
}

// ask asks once, and takes what there is.
func ask(t *testing.T, l *Limiter, messages int, recipients []int, urgent bool) Answer {
	t.Helper()
	a, err := l.reserve(t.Context(), messages, recipients, urgent)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLimiter_reserve(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	newOne := func(name, messages, recipients string, share float64) *Limiter {
		return New(client, Config{Mailer: name, Rates: rate.Rates{Messages: limits(t, messages), Recipients: limits(t, recipients)}, Share: share})
	}
	t.Run("without a burst at first", func(t *testing.T) {
		l := newOne("burst", "1/m burst=10", "", 0)
		if a := ask(t, l, 20, nil, false); a.Messages != 1 {
			t.Errorf("%d messages at once from a key that is not there, want 1", a.Messages)
		}
		// After a pause that fills it, there is the whole burst. Redis's clock cannot be set, so what it remembers is.
		past := fmt.Sprint(time.Now().Add(-time.Hour).UnixMicro())
		if err := client.HSet(t.Context(), wire.RateKey("burst"), "m:1/m burst=10", past).Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 20, nil, false); a.Messages != 10 {
			t.Errorf("%d messages at once after a pause, want 10", a.Messages)
		}
		a := ask(t, l, 20, nil, false)
		if a.Messages != 0 || a.Wait < 30*time.Second || a.Wait > time.Minute || a.Short != "m:1/m burst=10" {
			t.Errorf("then %+v, want to wait for a minute", a)
		}
	})
	t.Run("several at once", func(t *testing.T) {
		l := newOne("several", "1000000/s, 4/h burst=4", "", 0)
		past := fmt.Sprint(time.Now().Add(-3 * time.Hour).UnixMicro())
		if err := client.HSet(t.Context(), wire.RateKey("several"), "m:4/h burst=4", past, "m:1000000/s", past).Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 10, nil, false); a.Messages != 4 {
			t.Errorf("%d messages, want the 4 of the lower limit", a.Messages)
		}
	})
	t.Run("recipients", func(t *testing.T) {
		l := newOne("recipients", "", "1/m burst=10", 0)
		past := fmt.Sprint(time.Now().Add(-time.Hour).UnixMicro())
		if err := client.HSet(t.Context(), wire.RateKey("recipients"), "r:1/m burst=10", past).Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 4, []int{3, 4, 5, 1}, false); a.Messages != 2 {
			t.Errorf("%d messages, want the 2 that have 7 of 10 recipients", a.Messages)
		}
		if a := ask(t, l, 1, []int{4}, false); a.Messages != 0 {
			t.Errorf("%d messages, though only 3 recipients are left", a.Messages)
		}
	})
	t.Run("more recipients than there ever may be", func(t *testing.T) {
		l := newOne("big", "", "60/m burst=10", 0)
		past := fmt.Sprint(time.Now().Add(-time.Hour).UnixMicro())
		if err := client.HSet(t.Context(), wire.RateKey("big"), "r:60/m burst=10", past).Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 2, []int{50, 1}, false); a.Messages != 1 {
			t.Errorf("%d messages, want that of 50 recipients", a.Messages)
		}
		if a := ask(t, l, 1, []int{1}, false); a.Messages != 0 || a.Wait < 30*time.Second {
			t.Errorf("%+v, want to wait until the 50 are paid for", a)
		}
	})
	t.Run("a quota", func(t *testing.T) {
		l := newOne("quota", "240/d", "", 0)
		if a := ask(t, l, 100, nil, false); a.Messages != 10 {
			t.Errorf("%d messages of a key that is not there, want the even part of an hour", a.Messages)
		}
		a := ask(t, l, 100, nil, false)
		if a.Messages != 0 || a.Wait <= 0 || a.Wait > time.Hour+time.Minute {
			t.Errorf("then %+v, want to wait until the next hour", a)
		}
		hour := time.Now().UnixMicro() / (time.Hour.Microseconds())
		if err := client.HSet(t.Context(), wire.RateKey("quota"), "m:240/d", fmt.Sprintf("%d 239 %d 100", hour-30, hour-3)).Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 200, nil, false); a.Messages != 140 {
			t.Errorf("%d messages, want the 140 that a day has left", a.Messages)
		}
	})
	t.Run("a part of a quota is for the queue of the highest weight", func(t *testing.T) {
		l := newOne("kept", "240/d", "", .5)
		if err := client.HSet(t.Context(), wire.RateKey("kept"), "m:240/d", " ").Err(); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, l, 500, nil, false); a.Messages != 228 {
			t.Errorf("%d messages, want 95 of 100", a.Messages)
		}
		if a := ask(t, l, 500, nil, true); a.Messages != 12 {
			t.Errorf("%d urgent messages, want the rest", a.Messages)
		}
	})
	t.Run("urgent ones go ahead, up to their share", func(t *testing.T) {
		l := newOne("share", "10/s", "", .5)
		start := time.Now()
		ask(t, l, 1, nil, false)
		ahead := 0
		for range 20 {
			a := ask(t, l, 1, nil, true)
			ahead += a.Messages
		}
		// Half of what a second has, and one more: as far ahead as may be reserved. With each tenth of a second another one is due.
		if most := 8 + int(time.Since(start)/(100*time.Millisecond)); ahead < 3 || ahead > most {
			t.Errorf("%d messages went ahead, want about 5", ahead)
		}
		a := ask(t, l, 1, nil, false)
		if late := time.Since(start) > 200*time.Millisecond; !late && (a.Messages != 0 || a.Wait < 100*time.Millisecond) {
			t.Errorf("%+v for another one, which is to find the time taken", a)
		}
	})
	t.Run("another limit begins anew", func(t *testing.T) {
		ask(t, newOne("changed", "1/h burst=1", "", 0), 1, nil, false)
		if a := ask(t, newOne("changed", "2/h burst=1", "", 0), 1, nil, false); a.Messages != 1 {
			t.Errorf("%+v", a)
		}
	})
}

// Everything that was not used is used by the next one, and what was is not.
func TestLimiter_GiveBack(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	l := New(client, Config{Mailer: "m", Rates: rate.Rates{Messages: limits(t, "1/h burst=1"), Recipients: limits(t, "1000/h")}})
	n, _, err := l.Take(t.Context(), nil, 3, []int{2, 2, 2}, false)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	l.GiveBack(1, 2)
	over := make(chan struct{})
	close(over)
	if n, _, err := l.Take(t.Context(), over, 3, []int{3, 1, 1}, false); !errors.Is(err, ErrOver) {
		t.Errorf("%d, %v: more recipients than were given back", n, err)
	}
}

// A wait ends with whatever is first, and reserves nothing.
// What a worker had reserved when it died is lost, and no more: nobody else waits for it.
func TestLimiter_Take_died(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	r := rate.Rates{Messages: limits(t, "1000/s")}
	dead := New(client, Config{Mailer: "m", Rates: r})
	lost := 0
	start := time.Now()
	began := ask(t, dead, 1, nil, false).At
	for range 10 {
		lost += ask(t, dead, 100, nil, false).Messages
	}
	passed := int(time.Since(start) / time.Millisecond) // with each of which another one is due
	var b book
	l := New(client, Config{Mailer: "m", Rates: r, Told: b.told})
	for got := 0; got < 300; {
		n, _, err := l.Take(t.Context(), nil, 100, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	// All that there is to say about time without knowing the machine: the first grant comes no later than what was reserved takes.
	first := b.grants[0].At.Sub(began)
	if most := time.Duration(lost+100) * time.Millisecond; first > most && len(b.answers) < 3 {
		t.Errorf("the first message after %v, though only %d were reserved", first, lost)
	}
	if lost > 60+passed {
		t.Errorf("%d messages were reserved ahead of their time in %d ms, want what a window has", lost, passed)
	}
}

func TestLimiter_Take_ends(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	l := New(client, Config{Mailer: "m", Rates: rate.Rates{Messages: limits(t, "1/h burst=1")}})
	if n, _, err := l.Take(t.Context(), nil, 1, nil, false); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, waited, err := l.Take(ctx, nil, 1, nil, false); !errors.Is(err, context.Canceled) {
			t.Errorf("%v after %v", err, waited)
		}
	})
	wg.Go(func() { // behind the one that asks, or as that
		if _, _, err := l.Take(t.Context(), over, 1, nil, false); !errors.Is(err, ErrOver) {
			t.Error(err)
		}
	})
	for !l.Waits() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	close(over)
	wg.Wait()
	if l.Waits() {
		t.Error("somebody waits yet")
	}
}

// The relay wants less: half the rate for all, once for what was under way together, and more again step by step as it accepts.
func TestLimiter_Slow(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	r := rate.Rates{Messages: limits(t, "100000/s")}
	one, two := New(client, Config{Mailer: "m", Rates: r}), New(client, Config{Mailer: "m", Rates: r})
	for range 3 {
		if err := errors.Join(one.Slow(t.Context()), two.Slow(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if one.Factor() != .5 || two.Factor() != .5 {
		t.Fatalf("factors %v and %v, want .5", one.Factor(), two.Factor())
	}
	if factor, err := Lowered(t.Context(), client, "m"); factor != .5 || err != nil {
		t.Errorf("Redis has %v, %v", factor, err)
	}
	if factor, err := Lowered(t.Context(), client, "other"); factor != 1 || err != nil {
		t.Errorf("of another mailer Redis has %v, %v", factor, err)
	}
	three := New(client, Config{Mailer: "m", Rates: r})
	if a := ask(t, three, 1, nil, false); a.Factor != .5 {
		t.Errorf("a new worker has %v of the rate", a.Factor)
	}
	two.slowPause, one.slowPause = 0, 0
	for range 10 {
		if err := two.Slow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := two.Factor(); got < slowest-.001 || got > slowest+.001 {
		t.Errorf("at its slowest %v", got)
	}
	if a := ask(t, one, 1, nil, false); a.Factor > .02 {
		t.Errorf("%+v without an accepted message", a)
	}
	one.raiseWait = 0
	last := one.Factor()
	for range 25 {
		one.Accepted()
		a := ask(t, one, 1, nil, false)
		if step := a.Factor - last; step < 0 || step > raiseStep+.001 {
			t.Fatalf("from %v to %v", last, a.Factor)
		}
		last = a.Factor
	}
	if last != 1 {
		t.Errorf("in the end %v", last)
	}
}

func TestLimiter_Domains(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	domains, err := rate.ParseDomains("slow.example:2/s, *:1000/s, quota.example:24/d")
	if err != nil {
		t.Fatal(err)
	}
	l := New(client, Config{Mailer: "m", Rates: rate.Rates{Domains: domains}})
	// One that goes to several domains waits for the slowest, and takes nothing of the others. All are asked for at one time.
	several := [][]string{{"slow.example", "other.example"}, {"other.example"}, {"other.example", "OTHER.example"}, nil}
	places, err := l.Domains(t.Context(), append(slices.Repeat([][]string{{"Slow.Example."}}, 20), several...))
	if err != nil {
		t.Fatal(err)
	}
	soon, last := 0, time.Duration(0)
	for _, p := range places[:20] {
		switch {
		case p.Back == 0:
			soon++
			if p.Wait > AheadDomain || last > 0 {
				t.Errorf("%+v after one that was put off for %v", p, last)
			}
		case p.Back < last:
			t.Errorf("put off for %v after %v: it would come back before", p.Back, last)
		default:
			last = p.Back
		}
	}
	if soon < 4 || soon > 6 || last < 6*time.Second || last > 12*time.Second {
		t.Errorf("%d of 20 may go within two seconds, the last is put off for %v", soon, last)
	}
	if places = places[20:]; places[0].Back == 0 || places[1].Wait > 100*time.Millisecond || places[2].Back != 0 || places[3] != (Place{}) {
		t.Errorf("%+v", places)
	}
	places, err = l.Domains(t.Context(), [][]string{{"quota.example"}, {"quota.example"}})
	if err != nil || places[0].Back != 0 || places[1].Back == 0 && places[1].Wait == 0 || places[1].Back > MaxDelay {
		t.Errorf("%+v, %v", places, err)
	}
	for _, key := range client.Keys(t.Context(), "*").Val() {
		if !strings.HasPrefix(key, "mailpouch:{rate:m}:domain:") || client.PTTL(t.Context(), key).Val() <= 0 {
			t.Errorf("key %s, which lives for %v", key, client.PTTL(t.Context(), key).Val())
		}
	}
}

// All have so many connections together, whoever asks first, and each a part; those of one that says nothing any more are free.
func TestLimiter_Lease(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	l := New(client, Config{Mailer: "m", Rates: rate.Rates{Connections: 4}})
	lease := func(worker string, open, want int, idle bool, allowed int) {
		t.Helper()
		got, err := l.Lease(t.Context(), worker, open, want, idle)
		if err != nil || got != allowed {
			t.Errorf("%s has %d open and would have %d: it may have %d, %v, want %d", worker, open, want, got, err, allowed)
		}
	}
	lease("a", 0, 10, false, 4)
	lease("b", 0, 10, false, 0)
	lease("a", 4, 10, false, 2) // its even part
	lease("b", 0, 10, false, 0) // not before the others are closed
	lease("a", 2, 10, false, 2)
	lease("b", 0, 10, false, 2)
	lease("b", 2, 10, false, 2) // b's part is all now
	lease("a", 2, 2, true, 0)
	lease("a", 0, 0, true, 0)
	lease("b", 2, 10, false, 4)
	lease("b", 4, 4, true, 4) // nobody wants them
	lease("b", 4, 10, false, 4)
	// b is killed. What it said holds for a while, by the clock of Redis.
	key := wire.RateConnectionsKey("m")
	lease("c", 0, 4, false, 0)
	if err := client.HSet(t.Context(), key, "b", fmt.Sprintf("4 10 %d", time.Now().Add(-time.Second).UnixMilli())).Err(); err != nil {
		t.Fatal(err)
	}
	lease("c", 0, 4, false, 4)
	if n := client.HLen(t.Context(), key).Val(); n != 1 {
		t.Errorf("%d workers are known, want one", n)
	}
	many := New(client, Config{Mailer: "n", Rates: rate.Rates{Connections: 1}})
	for i, want := range []int{1, 0, 0} {
		if got, err := many.Lease(t.Context(), fmt.Sprint(i), 0, 5, false); got != want || err != nil {
			t.Errorf("worker %d of 3 may have %d of 1, %v", i, got, err)
		}
	}
}

// The scripts run in a cluster: all keys of a mailer are in one slot.
func TestLimiter_cluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{})
	var client redis.UniversalClient = c.Client(t)
	domains, err := rate.ParseDomains("*:1000/s")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a", "b", "marketing"} {
		l := New(client, Config{Mailer: name, Rates: rate.Rates{Messages: limits(t, "1000/s"), Connections: 2, Domains: domains}, Share: .5})
		if n, _, err := l.Take(t.Context(), nil, 1, nil, false); n != 1 || err != nil {
			t.Errorf("%q: %d, %v", name, n, err)
		}
		if _, err := l.Domains(t.Context(), [][]string{{"a.example", "b.example"}, {"c.example"}}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if n, err := l.Lease(t.Context(), "w", 0, 5, false); n != 2 || err != nil {
			t.Errorf("%q: %d, %v", name, n, err)
		}
		if err := l.Slow(t.Context()); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What is heard late does not undo what Redis has said since, unless its clock was set back.
func TestLimiter_hear(t *testing.T) {
	t.Parallel()
	var factors []float64
	l := New(nil, Config{Told: func(a Answer) { factors = append(factors, a.Factor) }})
	now := time.Now()
	for _, a := range []Answer{
		{At: now, Factor: .5}, {At: now.Add(-time.Millisecond), Factor: 1}, {At: now.Add(time.Second), Factor: .55},
		{At: now.Add(-time.Hour), Factor: .6}, {At: now.Add(-time.Hour + time.Second), Factor: .65},
	} {
		l.hear(a)
	}
	if want := []float64{.5, .5, .55, .6, .65}; !slices.Equal(factors, want) || l.Factor() != .65 {
		t.Errorf("%v, want %v", factors, want)
	}
}
