package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// patience is how long a test waits for what is bound to come.
const patience = 60 * time.Second

// desk is a Redis whose streams a test writes and reads.
type desk struct {
	*testing.T
	server *redistest.Server
	redis  *redis.Client
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	return &desk{t, server, server.Client(t)}
}

var addScript = redis.NewScript(Lua + `eventsAdd(KEYS[1], ARGV[1], ARGV[2]) return "done"`)

const plenty = 1 << 30

// add writes an entry with an event for each ID.
func (d *desk) add(queue string, most int, ids ...string) {
	d.Helper()
	var data []byte
	for _, id := range ids {
		data = Append(data, Sent, Message{ID: id}, "250 ok", id+"@example.com")
	}
	d.redis.SAdd(d.Context(), wire.QueuesKey, queue)
	if said, err := addScript.Run(d.Context(), d.redis, []string{Key(queue)}, data, most).Text(); said != "done" {
		d.Fatal(err)
	}
}

// audience gathers what readers of a group are given.
type audience struct {
	*desk
	mu   sync.Mutex
	got  []string
	news chan struct{}
}

func (d *desk) audience() *audience { return &audience{desk: d, news: make(chan struct{}, 1)} }

func (a *audience) handle(_ context.Context, list []Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range list {
		a.got = append(a.got, e.EmailID)
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
	return nil
}

func (a *audience) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// await waits until so many events are there.
func (a *audience) await(n int) []string {
	a.Helper()
	deadline := time.After(patience)
	for len(a.all()) < n {
		select {
		case <-a.news:
		case <-deadline:
			a.Fatalf("%d events, want %d: %q", len(a.all()), n, a.all())
		}
	}
	return a.all()
}

// quick is a pace for tests. A reader keeps a stream for long enough that it loses none on a slow machine.
func quick() readPace {
	return readPace{
		readFor: patience, least: time.Millisecond, most: 10 * time.Millisecond, others: 20 * time.Millisecond,
		queues: 20 * time.Millisecond, again: time.Millisecond, longest: 10 * time.Millisecond,
	}
}

// reads starts a reader of a group. It has begun when it returns.
func (d *desk) reads(group string, pace readPace, handle func(context.Context, []Event) error) (stop func()) {
	d.Helper()
	ctx, cancel := context.WithCancel(d.Context())
	client := d.server.Client(d)
	done := make(chan error, 1)
	go func() { done <- NewReader(client, ReaderConfig{Group: group, Batch: 3, pace: pace}).Run(ctx, handle) }()
	d.until("the group is known", func() bool { return d.redis.HExists(d.Context(), groupsKey, "group:"+group).Val() })
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				d.Error(err)
			}
		case <-time.After(patience):
			d.Error("the reader does not stop")
		}
	})
	d.Cleanup(stop)
	return stop
}

func (d *desk) until(what string, is func() bool) {
	d.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			d.Fatal("not within ", patience, ": ", what)
		}
	}
}

func numbered(prefix string, from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprint(prefix, i))
	}
	return ids
}

// Each group gets all from when it began, in order, from all queues and those that come later; of two readers of a group one.
func TestReader(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.add("default", plenty, "before")
	d.until("the next millisecond", func() bool { // an event is before the group only if Redis's clock has moved on
		entries := d.redis.XRange(t.Context(), Key("default"), "-", "+").Val()
		return !d.redis.Time(t.Context()).Val().Before(atOf(t, entries[0].ID).Add(2 * time.Millisecond))
	})
	one, other := d.audience(), d.audience()
	d.reads("one", quick(), one.handle)
	d.reads("one", quick(), one.handle)
	d.reads("other", quick(), other.handle)
	want := numbered("a", 0, 10)
	for i := range want {
		d.add("default", plenty, want[i])
	}
	d.add("default", plenty, numbered("b", 0, 8)...) // more than a batch
	want = append(want, numbered("b", 0, 8)...)
	for name, a := range map[string]*audience{"one": one, "other": other} {
		if got := a.await(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	d.add("marketing.default:mass~2", plenty, "c0")
	want = append(want, "c0")
	if got := one.await(len(want)); !slices.Equal(got, want) {
		t.Errorf("one has %q, want %q", got, want)
	}
	d.until("all is acknowledged", func() bool {
		for _, queue := range []string{"default", "marketing.default:mass~2"} {
			for _, g := range d.redis.XInfoGroups(t.Context(), Key(queue)).Val() {
				if g.Pending > 0 || g.LastDeliveredID != d.redis.XRevRangeN(t.Context(), Key(queue), "+", "-", 1).Val()[0].ID {
					return false
				}
			}
		}
		return true
	})
}

func atOf(t *testing.T, id string) time.Time {
	t.Helper()
	var ms int64
	if _, err := fmt.Sscanf(id, "%d-", &ms); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(ms)
}

// What could not be handled comes again, before what is behind it.
func TestReader_again(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.audience()
	failures := 0
	d.reads("one", quick(), func(ctx context.Context, list []Event) error {
		if failures++; failures%3 != 0 {
			return errors.New("not now")
		}
		return a.handle(ctx, list)
	})
	want := numbered("a", 0, 12)
	for i := 0; i < 12; i += 4 {
		d.add("default", plenty, want[i:i+4]...)
	}
	if got := a.await(12); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// What a reader that died had not acknowledged another one gets, first of all.
func TestReader_dies(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	client := d.server.Client(t)
	ctx, cancel := context.WithCancel(t.Context())
	has, over := make(chan []Event, 1), make(chan error)
	go func() {
		over <- NewReader(client, ReaderConfig{Group: "one", Batch: 2, pace: quick()}).Run(ctx, func(ctx context.Context, list []Event) error {
			has <- list
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	d.until("the group is known", func() bool { return d.redis.HExists(t.Context(), groupsKey, "group:one").Val() })
	want := numbered("a", 0, 5)
	d.add("default", plenty, want[:3]...)
	select {
	case <-has:
	case <-time.After(patience):
		t.Fatal("nothing is read")
	}
	a := d.audience()
	d.reads("one", quick(), a.handle)
	d.add("default", plenty, want[3:]...)
	if got := a.all(); len(got) > 0 {
		t.Errorf("%q was read while the first reader lives", got)
	}
	_ = client.Close() // it says nothing any more, not even that it ends
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	// Its key ends by itself, and here at once.
	if left := d.redis.PTTL(t.Context(), readerKey("default", "one")).Val(); left <= 0 || left > patience {
		t.Errorf("the first reader has the stream for %v", left)
	}
	d.redis.Del(t.Context(), readerKey("default", "one"))
	if got := a.await(5); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A reader that stood still finds out that another one has its streams.
func TestReader_losesStream(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pace := quick()
	pace.readFor = 3 * time.Second // it looks after a third of that
	has, lost := make(chan struct{}), make(chan struct{})
	hasIt, lostIt := sync.OnceFunc(func() { close(has) }), sync.OnceFunc(func() { close(lost) })
	d.reads("one", pace, func(ctx context.Context, _ []Event) error {
		hasIt()
		<-ctx.Done()
		lostIt()
		return ctx.Err()
	})
	d.add("default", plenty, "a")
	<-has
	d.redis.Set(t.Context(), readerKey("default", "one"), "another", 0)
	select {
	case <-lost:
	case <-time.After(patience):
		t.Error("it goes on")
	}
}

// Redis may be away, and may have been emptied.
func TestReader_redisAway(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.audience()
	d.reads("one", quick(), a.handle)
	d.add("default", plenty, "a0")
	a.await(1)
	d.server.Kill()
	d.server.Restart()
	d.until("Redis is back", func() bool { return d.redis.Ping(t.Context()).Err() == nil })
	d.redis.FlushAll(t.Context())
	d.add("default", plenty, "a1")
	if got := a.await(2); !slices.Equal(got[len(got)-1:], []string{"a1"}) {
		t.Errorf("got %q", got)
	}
}

func TestReader_badGroup(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer func() { _ = client.Close() }()
	for _, name := range []string{"", "a b", "{x}"} {
		if err := NewReader(client, ReaderConfig{Group: name}).Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "group") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A group that was ended reads nothing of before when it begins again, and holds up no count.
func TestForget(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	stop := d.reads("one", quick(), d.audience().handle)
	d.add("default", plenty, "a0")
	d.until("there is a group", func() bool { return len(d.redis.XInfoGroups(t.Context(), Key("default")).Val()) == 1 })
	stop()
	d.redis.SAdd(t.Context(), wire.QueuesKey, "empty")
	if err := Forget(t.Context(), d.redis, "one"); err != nil {
		t.Fatal(err)
	}
	if groups := d.redis.XInfoGroups(t.Context(), Key("default")).Val(); len(groups) != 0 || d.redis.HLen(t.Context(), groupsKey).Val() != 0 {
		t.Errorf("%v", groups)
	}
}

// A queue that comes later is seen when its first event is there, and not when all queues are looked for again.
func TestReader_newQueue(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pace := quick()
	pace.queues = time.Hour
	a := d.audience()
	d.reads("group", pace, a.handle)
	s := d.source("hooks", pace)
	for i, queue := range []string{"default", "other"} {
		d.add(queue, plenty, queue)
		a.await(i + 1)
		d.ack(s, d.next(s, 1)...)
	}
}

// deaf loses the answer to one pipeline that reads something, after Redis has done it.
type deaf struct{ reads atomic.Int32 }

func (d *deaf) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (d *deaf) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (d *deaf) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, one := range cmds {
			cmd, _ := one.(*redis.Cmd)
			if cmd == nil {
				continue
			}
			parts, _ := cmd.Slice()
			if len(parts) < 2 || len(parts[1].([]any)) == 0 || d.reads.Add(1) != 2 {
				continue
			}
			err = errors.New("i/o timeout")
			cmd.SetVal(nil)
			cmd.SetErr(err)
		}
		return err
	}
}

// What Redis gave in an answer that was lost is read again, before what comes after it.
func TestReader_answerLost(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.audience()
	client := d.server.Client(t)
	client.AddHook(&deaf{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewReader(client, ReaderConfig{Group: "one", Batch: 3, pace: quick()}).Run(ctx, a.handle)
	}()
	d.until("the group is known", func() bool { return d.redis.HExists(t.Context(), groupsKey, "group:one").Val() })
	for i, id := range []string{"first", "lost", "next"} {
		d.add("default", plenty, id)
		if got := a.await(i + 1); got[i] != id {
			t.Fatalf("%q, want %s in the end", got, id)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := a.all(); len(got) != 3 {
		t.Errorf("%q, want each once", got)
	}
}
