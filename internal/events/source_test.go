package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// source starts a source of a group. It has begun when it returns.
func (d *desk) source(group string, pace readPace) *Source {
	d.Helper()
	s := NewSource(d.server.Client(d), ReaderConfig{Group: group, pace: pace})
	d.Cleanup(func() { _ = s.Close() })
	ctx, cancel := context.WithTimeout(d.Context(), 10*time.Millisecond)
	defer cancel()
	for !d.redis.HExists(d.Context(), groupsKey, "group:"+group).Val() {
		if _, err := s.Next(ctx, 1); err == nil {
			d.Fatal("there are events")
		}
		ctx, cancel = context.WithTimeout(d.Context(), 10*time.Millisecond)
		defer cancel()
	}
	return s
}

// next returns so many events of a source.
func (d *desk) next(s *Source, n int) []Event {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	var all []Event
	for len(all) < n {
		events, err := s.Next(ctx, n-len(all))
		if err != nil {
			d.Fatalf("%d of %d events: %v", len(all), n, err)
		}
		all = append(all, events...)
	}
	return all
}

// none reports an error if a source has an event.
func (d *desk) none(s *Source) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 200*time.Millisecond)
	defer cancel()
	if events, err := s.Next(ctx, 10); !errors.Is(err, context.DeadlineExceeded) {
		d.Errorf("%v, %v", events, err)
	}
}

func (d *desk) ack(s *Source, events ...Event) {
	d.Helper()
	for _, e := range events {
		if err := s.Ack(d.Context(), e); err != nil {
			d.Fatal(err)
		}
	}
}

func (d *desk) pending(queue, group string) int64 {
	d.Helper()
	p, err := d.redis.XPending(d.Context(), Key(queue), group).Result()
	if err != nil {
		d.Fatal(err)
	}
	return p.Count
}

func names(events []Event) (ids []string) {
	for _, e := range events {
		ids = append(ids, e.EmailID)
	}
	slices.Sort(ids)
	return ids
}

// An entry is acknowledged with the last of its events, in whatever order they end.
func TestSource_acknowledges(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	d.add("default", plenty, "a", "b", "c")
	d.add("bulk", plenty, "d")
	got := d.next(s, 4)
	if fmt.Sprint(names(got)) != "[a b c d]" {
		t.Fatalf("%v", names(got))
	}
	slices.SortFunc(got, func(a, b Event) int { return int(b.EmailID[0]) - int(a.EmailID[0]) })
	d.ack(s, got[:3]...)
	if one, other := d.pending("default", "hooks"), d.pending("bulk", "hooks"); one != 1 || other != 0 {
		t.Errorf("%d and %d entries are not acknowledged", one, other)
	}
	d.ack(s, got[3])
	d.ack(s, got[3]) // again is no matter
	if one := d.pending("default", "hooks"); one != 0 || len(s.held) != 0 || len(s.of) != 0 {
		t.Errorf("%d entries are not acknowledged, %v and %v are held", one, s.held, s.of)
	}
	d.none(s)
}

// The last two events of an entry may be acknowledged at the same time, by many.
func TestSource_acknowledgesAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	for range 50 {
		d.add("default", plenty, "a", "b", "c", "d")
	}
	// All entries have the same events, so these are in each.
	got := d.next(s, 4)
	d.none(s)
	var group sync.WaitGroup
	for _, e := range got {
		group.Go(func() {
			if err := s.Ack(context.WithoutCancel(t.Context()), e); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := d.pending("default", "hooks"); n != 0 || len(s.held) != 0 || len(s.of) != 0 {
		t.Errorf("%d entries are not acknowledged, %d are held", n, len(s.held))
	}
}

// After an error the event may be acknowledged again.
func TestSource_acknowledgesAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	d.add("default", plenty, "a")
	got := d.next(s, 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ack(ended, got[0]); err == nil {
		t.Fatal("no error")
	}
	if n := d.pending("default", "hooks"); n != 1 {
		t.Fatalf("%d pending", n)
	}
	d.ack(s, got[0])
	if n := d.pending("default", "hooks"); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// Several sources share the events, and each event goes to one of them.
func TestSource_shared(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	sources := []*Source{d.source("hooks", quick()), d.source("hooks", quick()), d.source("hooks", quick())}
	other := d.source("others", quick())
	const n = 60
	for i := range n {
		d.add([]string{"default", "bulk"}[i%2], plenty, fmt.Sprint(i))
	}
	seen := map[string]bool{}
	for i := 0; len(seen) < n; i++ {
		s := sources[i%len(sources)]
		for _, e := range d.next(s, 2) {
			if seen[e.EmailID] {
				t.Errorf("%s was handed out twice", e.EmailID)
			}
			seen[e.EmailID] = true
			d.ack(s, e)
		}
	}
	if got := d.next(other, n); len(names(got)) != n {
		t.Errorf("the other group got %d", len(got))
	}
}

// What a source leaves others get at once.
func TestSource_leaves(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	leaves, keeps := d.source("hooks", quick()), d.source("hooks", quick())
	d.add("default", plenty, "a", "b")
	d.ack(leaves, d.next(leaves, 2)[0])
	d.add("default", plenty, "c")
	d.next(keeps, 1)
	if err := leaves.Close(); err != nil {
		t.Fatal(err)
	}
	heir := d.source("hooks", quick())
	if got := names(d.next(heir, 2)); fmt.Sprint(got) != "[a b]" { // an entry comes as a whole
		t.Errorf("%v", got)
	}
	d.none(heir)
}

// A source says of what it has that it still has it; what a dead one had others get when that was long ago.
func TestSource_keeps(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pace := quick()
	pace.readFor = 30 * time.Millisecond
	keeps, dies := d.source("hooks", pace), d.source("hooks", quick())
	d.add("default", plenty, "a")
	d.next(keeps, 1)
	d.add("default", plenty, "b")
	d.next(dies, 1)
	dies.stop()
	idle := func() map[string]time.Duration {
		pending, err := d.redis.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: Key("default"), Group: "hooks", Start: "-", End: "+", Count: 10}).Result()
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]time.Duration{}
		for _, one := range pending {
			by[one.Consumer] = one.Idle
		}
		return by
	}
	for _, s := range []*Source{keeps, dies} {
		if err := s.give(t.Context(), s.me, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	d.until("it says that it has it", func() bool { return idle()[keeps.me] < time.Hour/2 })
	if idle()[dies.me] < time.Hour {
		t.Error("a source that is dead says that it has it")
	}
	heir := d.source("hooks", quick())
	if got := names(d.next(heir, 1)); fmt.Sprint(got) != "[b]" {
		t.Errorf("%v", got)
	}
	d.none(heir)
}

// A source finds what a dead one had, however much others have before it.
func TestSource_claimsBehindMany(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	alive, dead := d.source("hooks", quick()), d.source("hooks", quick())
	const many = 1200 // XAUTOCLAIM looks at ten times as many as it is asked for
	for i := range many {
		d.add("default", plenty, fmt.Sprint(i))
	}
	d.next(alive, many)
	d.add("default", plenty, "last")
	d.next(dead, 1)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	heir := d.source("hooks", quick())
	if got := names(d.next(heir, 1)); fmt.Sprint(got) != "[last]" {
		t.Errorf("%v", got)
	}
}

// Entries that cannot be read do not stop what is behind them, and a stream whose oldest entries have gone neither.
func TestSource_broken(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	d.redis.SAdd(t.Context(), wire.QueuesKey, "default")
	d.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: Key("default"), Values: []string{field, "garbage"}})
	d.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: Key("default"), Values: []string{"other", "x", "y", "z"}})
	d.add("default", plenty, "a")
	if got := names(d.next(s, 1)); fmt.Sprint(got) != "[a]" {
		t.Errorf("%v", got)
	}
	d.redis.XTrimMaxLen(t.Context(), Key("default"), 0)
	d.add("default", plenty, "b")
	got := d.next(s, 1)
	if fmt.Sprint(names(got)) != "[b]" {
		t.Errorf("%v", names(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	heir := d.source("hooks", quick())
	if got := names(d.next(heir, 1)); fmt.Sprint(got) != "[b]" {
		t.Errorf("%v", got)
	}
}

// Redis has lost its data: what comes then is handed out.
func TestSource_lostRedis(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	d.add("default", plenty, "a")
	d.ack(s, d.next(s, 1)...)
	d.redis.FlushAll(t.Context())
	d.until("the group is known again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, _ = s.Next(ctx, 1)
		return d.redis.HExists(t.Context(), groupsKey, "group:hooks").Val()
	})
	d.add("default", plenty, "b")
	if got := names(d.next(s, 1)); fmt.Sprint(got) != "[b]" {
		t.Errorf("%v", got)
	}
}

// Sources that are there no more are forgotten, and groups that nobody reads.
func TestSource_forgotten(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks-1", quick())
	d.source("hooks-2", quick())
	d.source("other", quick())
	d.add("default", plenty, "a")
	d.ack(s, d.next(s, 1)...)
	ctx := t.Context()
	if err := sourceScript.Run(ctx, d.redis, []string{Key("default")}, "hooks-1", "another", 1, "0-0", "", "0-0", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if all := d.redis.XInfoConsumers(ctx, Key("default"), "hooks-1").Val(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	for _, group := range []string{"hooks-1", "hooks-2", "other"} {
		d.until("it is known who reads", func() bool { return d.redis.HExists(ctx, groupsKey, "used:"+group).Val() })
	}
	d.redis.HSet(ctx, groupsKey, "used:hooks-1", time.Now().Add(-time.Hour).Unix(), "used:other", 1)
	if err := forgetUnused(ctx, d.redis, 30*time.Minute); err != nil {
		t.Fatal(err)
	}
	fields := d.redis.HGetAll(ctx, groupsKey).Val()
	for field, want := range map[string]bool{
		"group:hooks-1": false, "used:hooks-1": false, "group:hooks-2": true, "used:hooks-2": true, "group:other": false, "used:other": false,
	} {
		if fields[field] == "" == want {
			t.Errorf("%s: %q", field, fields[field])
		}
	}
	for _, g := range d.redis.XInfoGroups(ctx, Key("default")).Val() {
		if g.Name == "hooks-1" {
			t.Error("the group is there")
		}
	}
}

func TestSource_groupName(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := NewSource(d.redis, ReaderConfig{Group: "no name"})
	defer func() { _ = s.Close() }()
	if _, err := s.Next(t.Context(), 1); err == nil {
		t.Error("no error")
	}
}

// What has had events lately is looked at often, what has had none for long seldom, and the more so the more there are.
func TestLook(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for _, tt := range []struct {
		quiet, longest, want time.Duration
	}{
		{0, time.Second, 0}, {100 * time.Millisecond, time.Second, 10 * time.Millisecond}, {5 * time.Second, time.Second, 500 * time.Millisecond},
		{time.Hour, time.Second, time.Second}, {20 * time.Second, 6 * time.Second, 2 * time.Second}, {time.Hour, 6 * time.Second, 6 * time.Second},
	} {
		l := look{some: start}
		now := start.Add(tt.quiet)
		if l.again(now, false, tt.longest); l.next.Sub(now) != tt.want {
			t.Errorf("after %v: in %v, want %v", tt.quiet, l.next.Sub(now), tt.want)
		}
		if l.again(now, true, tt.longest); l.next != now || l.some != now {
			t.Errorf("after %v with events: in %v", tt.quiet, l.next.Sub(now))
		}
	}
}

// However many queues have events that wait, a source has few of them in memory.
func TestSource_manyQueues(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.source("hooks", quick())
	const queues, each = 200, 5
	for i := range queues {
		for j := range each {
			d.add(fmt.Sprint("q", i), plenty, fmt.Sprint(i, "-", j))
		}
	}
	for got := 0; got < queues*each; {
		events := d.next(s, 1)
		s.mu.Lock()
		if n := len(s.held); n > streamsAtOnce {
			t.Errorf("%d entries are in memory", n)
		}
		s.mu.Unlock()
		d.ack(s, events...)
		got++
	}
}
