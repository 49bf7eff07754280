package asynqbatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// counter counts the scripts that take tasks, by queue, and answers them with nothing or with
// one task.
type counter struct {
	redis.UniversalClient
	asked map[string]int
	full  bool
	err   error
}

func (c *counter) EvalSha(_ context.Context, _ string, keys []string, _ ...any) *redis.Cmd {
	c.asked[keys[0]]++
	if c.err != nil {
		return redis.NewCmdResult(nil, c.err)
	}
	if c.full {
		return redis.NewCmdResult([]any{"id", "task", "0", ""}, nil)
	}
	return redis.NewCmdResult([]any{}, nil)
}

func TestMain(m *testing.M) { redistest.VerifyTestMain(m) }

// newBroker is what a server with so many slots uses as its client.
func newBroker(client redis.UniversalClient, slots int, eager func() bool) *broker {
	if eager == nil {
		eager = func() bool { return true }
	}
	return newBrokerAt(client, slots, eager, nil)
}

// newBrokerAt is newBroker with another clock.
func newBrokerAt(client redis.UniversalClient, slots int, eager func() bool, clock Clock) *broker {
	c := New(client, Config{
		LostField: "test:lost", OwnerField: "test:owner", TouchedFields: []string{"test:sent", "test:cancelled"}, Clock: clock,
		Steps: map[string]string{"finish": `look(task) if task.ours and task.ends and finish(task) then return "ended" end return ""`,
			"mark": `look(task) if not task.ours then return "no" end redis.call("HSET", task.key, "mark", args[1]) renew(task) return "yes"`},
	})
	return c.broker(newFetcher(c.base, newSlots(slots), eager))
}

// The package is made for one version of asynq: after an update its scripts are to be read again.
func TestVersion(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(module), "github.com/hibiken/asynq v0.26.0\n") {
		t.Error("go.mod has another asynq than v0.26.0: compare its internal/rdb with this package, then change its doc and this test")
	}
}

// An empty queue is not asked again at once, and after a moment it is: a longer one where
// nothing calls for haste.
func TestBroker_emptyQueue(t *testing.T) {
	t.Parallel()
	for eager, pause := range map[bool]time.Duration{true: emptyFor, false: CheckInterval} {
		t.Run(fmt.Sprint("eager=", eager), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := &counter{asked: map[string]int{}}
				b := newBroker(client, 1, func() bool { return eager })
				keys := fetchKeysOf("bulk")
				ask := func() error { return b.EvalSha(t.Context(), "sha", keys, 1, "asynq:{bulk}:t:").Err() }
				for range 10 {
					if err := ask(); err != redis.Nil { //nolint:errorlint // as asynq compares it
						t.Fatalf("an empty queue: %v", err)
					}
				}
				<-time.After(pause - 1)
				if _ = ask(); client.asked[keys[0]] != 1 {
					t.Errorf("asked %d times in %v, want once", client.asked[keys[0]], pause)
				}
				<-time.After(1)
				client.full = true
				for range 3 {
					if err := ask(); err != nil {
						t.Fatal(err)
					}
				}
				if n := client.asked[keys[0]]; n != 4 {
					t.Errorf("asked %d times in all, want 4: a queue that has tasks is asked each time", n)
				}
			})
		})
	}
}

// A Redis that refuses is not asked without end.
func TestBroker_refused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &counter{asked: map[string]int{}, err: errors.New("NOPERM no")}
		b := newBroker(client, 1, nil)
		start := time.Now()
		for range 10 {
			if err := b.EvalSha(t.Context(), "sha", fetchKeysOf("bulk"), 1, "asynq:{bulk}:t:").Err(); err != client.err { //nolint:errorlint // the very same
				t.Fatalf("%v, want what Redis says", err)
			}
		}
		if took := time.Since(start); took != 10*CheckInterval {
			t.Errorf("asked ten times in %v", took)
		}
	})
}

// fixture is a queue on a real Redis, and a broker before it.
type fixture struct {
	*broker
	redis *redis.Client
}

func newFixture(t *testing.T, slots int) fixture {
	t.Helper()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	return fixture{newBroker(client, slots, nil), client}
}

// enqueue puts tasks into a queue, with the numbers from first to last for IDs.
func (s fixture) enqueue(t *testing.T, queue string, first, last int) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(s.redis)
	for i := first; i <= last; i++ {
		if _, err := client.Enqueue(asynq.NewTask("test", nil), asynq.TaskID(strconv.Itoa(i)), asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
}

// fetchOne asks as asynq does, and reports whether there was a task.
func (s fixture) fetchOne(t *testing.T, queue string) bool {
	t.Helper()
	lease := time.Now().Add(30 * time.Second).Unix()
	err := s.EvalSha(t.Context(), "sha", fetchKeysOf(queue), lease, TaskKey(queue, "")).Err()
	if err != nil && err != redis.Nil { //nolint:errorlint // as asynq compares it
		t.Fatal(err)
	}
	return err == nil
}

// list is a list of a queue's, as asynq keeps it: what is next comes last.
func (s fixture) list(t *testing.T, queue, list string) string {
	t.Helper()
	ids, err := s.redis.LRange(t.Context(), "asynq:{"+queue+"}:"+list, 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(ids, " ")
}

func (s fixture) states(t *testing.T, queue string, ids ...string) string {
	t.Helper()
	var states []string
	for _, id := range ids {
		states = append(states, s.redis.HGet(t.Context(), TaskKey(queue, id), "state").Val())
	}
	return strings.Join(states, " ")
}

// Tasks are taken for all free slots at once, and what is not begun goes back in its order.
func TestFetcher(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	s.enqueue(t, "default", 1, 5)
	s.enqueue(t, "bulk", 11, 11)
	if !s.fetchOne(t, "default") {
		t.Fatal("no task in a full queue")
	}
	if got := s.list(t, "default", "active"); got != "3 2 1" {
		t.Errorf("active %q, want the first three, one for each slot", got)
	}
	if n := s.redis.ZCard(t.Context(), "asynq:{default}:lease").Val(); n != 3 {
		t.Errorf("%d leases, want 3", n)
	}
	if s.fetchOne(t, "bulk") {
		t.Error("a task of another queue was taken, though all slots are promised")
	}
	if !s.fetchOne(t, "default") { // 2: prefetched
		t.Error("what was taken is not given to asynq")
	}
	s.fetcher.close(t.Context())
	if active, waiting := s.list(t, "default", "active"), s.list(t, "default", "pending"); active != "2 1" || waiting != "5 4 3" {
		t.Errorf("active %q, waiting %q: 3 was to go back to the head of the queue", active, waiting)
	}
	if got := s.states(t, "default", "1", "2", "3", "4"); got != "active active pending pending" {
		t.Errorf("states %s", got)
	}
	if !s.fetchOne(t, "bulk") {
		t.Error("the other queue is not asked after that")
	}
}

// A paused queue gives nothing.
func TestFetcher_paused(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	s.enqueue(t, "default", 1, 2)
	if err := asynq.NewInspectorFromRedisClient(s.redis).PauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	if s.fetchOne(t, "default") {
		t.Error("a task of a paused queue was taken")
	}
}

// What has waited too long for asynq goes back, unless another worker has it by now.
func TestFetcher_stale(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 4)
	s.enqueue(t, "default", 1, 4)
	s.fetchOne(t, "default")
	for list := range s.fetcher.prefetched {
		for i := range s.fetcher.prefetched[list] {
			s.fetcher.prefetched[list][i].at = time.Now().Add(-2 * prefetchedFor)
		}
	}
	s.redis.HSet(t.Context(), TaskKey("default", "3"), "test:owner", "another") // given out again
	s.fetcher.slots.all = 1
	if !s.fetchOne(t, "default") { // 2 and 4 go back, and 2 is taken anew
		t.Fatal("no task")
	}
	if active, waiting := s.list(t, "default", "active"), s.list(t, "default", "pending"); active != "2 3 1" || waiting != "4" {
		t.Errorf("active %q, waiting %q", active, waiting)
	}
}

// Tasks that end are ended as asynq ends them, also when many end at the same time.
func TestSteps(t *testing.T) {
	t.Parallel()
	const n = 50
	plain, ours := newFixture(t, 10), newFixture(t, 10)
	run := func(s fixture, client redis.UniversalClient) (owned int) {
		s.enqueue(t, "default", 1, n)
		var owners atomic.Int64
		var all sync.WaitGroup
		all.Add(n)
		server := asynq.NewServerFromRedisClient(client, asynq.Config{Concurrency: 10, LogLevel: asynq.FatalLevel})
		if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			if s.redis.HExists(ctx, TaskKey("default", task.ResultWriter().TaskID()), "test:owner").Val() {
				owners.Add(1)
			}
			all.Done()
			return nil
		})); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		server.Shutdown()
		return int(owners.Load())
	}
	run(plain, plain.redis)
	owned := run(ours, ours)
	// asynq's scripts are known by their keys, and those may change.
	if len(ours.steps.queues) == 0 {
		t.Error("asynq's script that ends a task was not known")
	}
	if owned != n {
		t.Errorf("asynq's script that takes a task was not known: %d tasks have an owner, want %d", owned, n)
	}
	if want, got := everything(t, plain.redis), everything(t, ours.redis); !slices.Equal(want, got) {
		t.Errorf("asynq leaves\n%s\nand we leave\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// everything is what is in Redis.
func everything(t *testing.T, client *redis.Client) []string {
	t.Helper()
	var all []string
	for _, key := range client.Keys(t.Context(), "*").Val() {
		kind := client.Type(t.Context(), key).Val()
		expires := client.TTL(t.Context(), key).Val().Round(time.Hour)
		all = append(all, fmt.Sprintf("%s: %s %v %s", key, kind, expires, client.Get(t.Context(), key).Val()))
	}
	slices.Sort(all)
	return all
}

// A task that is not active any more has not been ended here, nor one that is another worker's. The others have.
func TestSteps_notActive(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 10)
	s.enqueue(t, "default", 1, 4)
	s.fetchOne(t, "default")
	const list = "asynq:{default}:"
	s.redis.LRem(t.Context(), list+"active", 0, "2")
	s.redis.HSet(t.Context(), TaskKey("default", "4"), "test:owner", "another")
	s.redis.Set(t.Context(), list+"processed", int64(math.MaxInt64-1), 0)
	var ends []Step
	for _, id := range []string{"1", "2", "3", "4"} {
		ends = append(ends, Step{Name: "finish", Key: TaskKey("default", id)})
	}
	want := []string{"ended", "", "ended", ""}
	for i, a := range s.steps.do(t.Context(), ends) {
		if a.Err != nil || a.Text != want[i] {
			t.Errorf("task %d: %q, %v, want %q", i+1, a.Text, a.Err, want[i])
		}
	}
	if n := s.redis.Exists(t.Context(), TaskKey("default", "1"), TaskKey("default", "3")).Val(); n != 0 {
		t.Errorf("%d tasks are still there that have ended", n)
	}
	if got := s.list(t, "default", "active"); got != "4" {
		t.Errorf("active %q, want 4 alone", got)
	}
	today, all := s.redis.Get(t.Context(), list+"processed:"+time.Now().UTC().Format(time.DateOnly)).Val(), s.redis.Get(t.Context(), list+"processed").Val()
	if today != "2" || all != "2" {
		t.Errorf("processed today %s, in all %s, want 2, and 2 again: it begins anew at the greatest number", today, all)
	}
}

// A sender ends the task of its message, and asynq, which comes later, is told that it has ended.
func TestSteps_sender(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 10)
	s.enqueue(t, "default", 1, 3)
	for range 3 {
		s.fetchOne(t, "default")
	}
	one, two := TaskKey("default", "1"), TaskKey("default", "2")
	if got := s.step(t, "finish", one); got != "ended" || s.redis.Exists(t.Context(), one).Val() != 0 {
		t.Errorf("%s, want the task to have ended", got)
	}
	if err := s.asynqEnds(t, "1"); err != nil {
		t.Errorf("%v: asynq should hear that it has ended", err)
	}
	s.redis.LRem(t.Context(), "asynq:{default}:active", 0, "2")
	if got := s.step(t, "finish", two); got != "" {
		t.Errorf("%s, want that it is not active", got)
	}
	if err := s.asynqEnds(t, "2"); !errors.Is(err, errNotActive) {
		t.Errorf("%v: asynq should hear that it is not active", err)
	}
	if err := s.asynqEnds(t, "3"); err != nil {
		t.Error(err)
	}
	delete(s.base.claims.byKey, two)
	if got := s.redis.Get(t.Context(), "asynq:{default}:processed").Val(); got != "2" || len(s.base.claims.byKey) != 0 {
		t.Errorf("processed %s, want 2; remembered: %v", got, s.base.claims.byKey)
	}
}

// step does a step to a task.
func (s fixture) step(t *testing.T, name, key string, args ...string) string {
	t.Helper()
	a := s.steps.do(t.Context(), []Step{{Name: name, Key: key, Args: args}})[0]
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	return a.Text
}

// asynqEnds asks as asynq does when a handler has returned.
func (s fixture) asynqEnds(t *testing.T, id string) error {
	t.Helper()
	list := "asynq:{default}:"
	keys := []string{list + "active", list + "lease", TaskKey("default", id), list + "processed:today", list + "processed"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return s.EvalSha(ctx, "sha", keys, id, time.Now().Add(time.Hour).Unix(), int64(math.MaxInt64)).Err()
}

// A task of which asynq keeps something is left to asynq.
func TestVanishes(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	all := []asynq.Option{asynq.MaxRetry(3), asynq.Timeout(time.Hour), asynq.Deadline(time.Now().Add(time.Hour)), asynq.Group("g")}
	for name, c := range map[string]struct {
		opts []asynq.Option
		want bool
	}{
		"plain":     {nil, true},
		"options":   {all, true},
		"retention": {[]asynq.Option{asynq.Retention(time.Second)}, false},
		"unique":    {[]asynq.Option{asynq.Unique(time.Hour)}, false},
	} {
		task := asynq.NewTaskWithHeaders("test", []byte(strings.Repeat(name, 500)), map[string]string{"a": "b"})
		info, err := asynq.NewClientFromRedisClient(client).Enqueue(task, c.opts...)
		if err != nil {
			t.Fatal(err)
		}
		message := client.HGet(t.Context(), TaskKey("default", info.ID), "msg").Val()
		if got := vanishes(message); got != c.want {
			t.Errorf("%s: vanishes %v, want %v", name, got, c.want)
		}
		for n := range message {
			vanishes(message[:n]) // it does not panic
		}
	}
	for _, broken := range []string{"\x0a", "\x0a\x05ab", "\x0d1234", strings.Repeat("\xff", 20)} {
		if vanishes(broken) {
			t.Errorf("%q: not a task", broken)
		}
	}
}

// A server whose slots are taken waits a moment until some are free, and no longer.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newSlots(40)
		for range 5 {
			p.give() // asynq begins none of them
		}
		if n := p.wait(); n != mostAtOnce {
			t.Errorf("%d slots at the beginning, want %d", n, mostAtOnce)
		}
		for range 5 {
			p.give()
		}
		if n := p.wait(); n != 30 {
			t.Errorf("%d slots when ten tasks are about to begin, want 30", n)
		}
		<-time.After(prefetchedFor + 1)
		for range 40 {
			p.enter()
		}
		start := time.Now()
		if n := p.wait(); n != 1 || time.Since(start) != gatherFor {
			t.Errorf("%d slots after %v, want 1 after %v: asynq has one", n, time.Since(start), gatherFor)
		}
		for range p.enough - 1 {
			p.leave()
		}
		got := make(chan int)
		start = time.Now()
		go func() { got <- p.wait() }()
		synctest.Wait()
		p.leave()
		if n := <-got; n != p.enough || time.Since(start) != 0 {
			t.Errorf("%d slots after %v, want %d at once", n, time.Since(start), p.enough)
		}
	})
}
