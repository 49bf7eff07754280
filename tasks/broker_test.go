package tasks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

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
		return redis.NewCmdResult([]any{"id", "task", "0"}, nil)
	}
	return redis.NewCmdResult([]any{}, nil)
}

// takeKeys are the keys of asynq's script that takes a task.
func takeKeys(queue string) []string {
	list := "asynq:{" + queue + "}:"
	return []string{list + "pending", list + "paused", list + "active", list + "lease"}
}

// An empty queue is not asked again at once, and after a moment it is: a longer one where
// nothing calls for haste.
func TestBroker_emptyQueue(t *testing.T) {
	t.Parallel()
	for eager, pause := range map[bool]time.Duration{true: emptyFor, false: checkInterval} {
		t.Run(fmt.Sprint("eager=", eager), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := &counter{asked: map[string]int{}}
				b := newBroker(client, newEndings(client), newTaker(client, newPlaces(1), func() bool { return eager }), newIsolation(client, zerolog.Nop()))
				keys := takeKeys("bulk")
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

// A lane is busy for a moment after each message.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b busy
		if b.lately() {
			t.Error("busy before the first message")
		}
		b.note(time.Now())
		<-time.After(checkInterval - 1)
		if !b.lately() {
			t.Error("not busy right after a message")
		}
		if <-time.After(1); b.lately() {
			t.Error("busy for ever")
		}
	})
}

// A Redis that refuses is not asked without end.
func TestBroker_refused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &counter{asked: map[string]int{}, err: errors.New("NOPERM no")}
		b := newBroker(client, newEndings(client), newTaker(client, newPlaces(1), always), newIsolation(client, zerolog.Nop()))
		start := time.Now()
		for range 10 {
			if err := b.EvalSha(t.Context(), "sha", takeKeys("bulk"), 1, "asynq:{bulk}:t:").Err(); err != client.err { //nolint:errorlint // the very same
				t.Fatalf("%v, want what Redis says", err)
			}
		}
		if took := time.Since(start); took != 10*checkInterval {
			t.Errorf("asked ten times in %v", took)
		}
	})
}

// shelter is a queue on a real Redis, and a broker before it.
type shelter struct {
	*broker
	redis *redis.Client
}

func newShelter(t *testing.T, places int) shelter {
	t.Helper()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	return shelter{newBroker(client, newEndings(client), newTaker(client, newPlaces(places), always), newIsolation(client, zerolog.Nop())), client}
}

// enqueue puts tasks into a queue, with the numbers from first to last for IDs.
func (s shelter) enqueue(t *testing.T, queue string, first, last int) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(s.redis)
	for i := first; i <= last; i++ {
		if _, err := client.Enqueue(asynq.NewTask("test", nil), asynq.TaskID(strconv.Itoa(i)), asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
}

// take asks as asynq does, and says whether there was a task.
func (s shelter) take(t *testing.T, queue string) bool {
	t.Helper()
	lease := time.Now().Add(30 * time.Second).Unix()
	err := s.EvalSha(t.Context(), "sha", takeKeys(queue), lease, taskKey(queue, "")).Err()
	if err != nil && err != redis.Nil { //nolint:errorlint // as asynq compares it
		t.Fatal(err)
	}
	return err == nil
}

// list is a list of a queue's, as asynq keeps it: what is next comes last.
func (s shelter) list(t *testing.T, queue, list string) string {
	t.Helper()
	ids, err := s.redis.LRange(t.Context(), "asynq:{"+queue+"}:"+list, 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(ids, " ")
}

func (s shelter) states(t *testing.T, queue string, ids ...string) string {
	t.Helper()
	var states []string
	for _, id := range ids {
		states = append(states, s.redis.HGet(t.Context(), taskKey(queue, id), "state").Val())
	}
	return strings.Join(states, " ")
}

// Tasks are taken for all places at once, and what is not begun goes back in its order.
func TestTaker(t *testing.T) {
	t.Parallel()
	s := newShelter(t, 3)
	s.enqueue(t, "default", 1, 5)
	s.enqueue(t, "bulk", 11, 11)
	if !s.take(t, "default") {
		t.Fatal("no task in a full queue")
	}
	if got := s.list(t, "default", "active"); got != "3 2 1" {
		t.Errorf("active %q, want the first three, one for each place", got)
	}
	if n := s.redis.ZCard(t.Context(), "asynq:{default}:lease").Val(); n != 3 {
		t.Errorf("%d leases, want 3", n)
	}
	if s.take(t, "bulk") {
		t.Error("a task of another queue was taken, though all places are promised")
	}
	if !s.take(t, "default") { // 2: from the shelf
		t.Error("what was taken is not given to asynq")
	}
	s.taker.close(t.Context())
	if active, waiting := s.list(t, "default", "active"), s.list(t, "default", "pending"); active != "2 1" || waiting != "5 4 3" {
		t.Errorf("active %q, waiting %q: 3 was to go back to the head of the queue", active, waiting)
	}
	if got := s.states(t, "default", "1", "2", "3", "4"); got != "active active pending pending" {
		t.Errorf("states %s", got)
	}
	if !s.take(t, "bulk") {
		t.Error("the other queue is not asked after that")
	}
}

// A paused queue gives nothing.
func TestTaker_paused(t *testing.T) {
	t.Parallel()
	s := newShelter(t, 3)
	s.enqueue(t, "default", 1, 2)
	if err := asynq.NewInspectorFromRedisClient(s.redis).PauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	if s.take(t, "default") {
		t.Error("a task of a paused queue was taken")
	}
}

// What has waited too long for asynq goes back, unless another worker has it by now.
func TestTaker_stale(t *testing.T) {
	t.Parallel()
	s := newShelter(t, 4)
	s.enqueue(t, "default", 1, 4)
	s.take(t, "default")
	for list := range s.taker.shelf {
		for i := range s.taker.shelf[list] {
			s.taker.shelf[list][i].at = time.Now().Add(-2 * shelfLife)
		}
	}
	s.redis.ZIncrBy(t.Context(), "asynq:{default}:lease", 60, "3") // given out again
	s.taker.places.all = 1
	if !s.take(t, "default") { // 2 and 4 go back, and 2 is taken anew
		t.Fatal("no task")
	}
	if active, waiting := s.list(t, "default", "active"), s.list(t, "default", "pending"); active != "2 3 1" || waiting != "4" {
		t.Errorf("active %q, waiting %q", active, waiting)
	}
}

// Tasks that end are ended as asynq ends them, also when many end at the same time.
func TestEndings(t *testing.T) {
	t.Parallel()
	const n = 50
	plain, ours := newShelter(t, 10), newShelter(t, 10)
	run := func(s shelter, client redis.UniversalClient) {
		s.enqueue(t, "default", 1, n)
		var all sync.WaitGroup
		all.Add(n)
		server := asynq.NewServerFromRedisClient(client, asynq.Config{Concurrency: 10, LogLevel: asynq.FatalLevel})
		if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { all.Done(); return nil })); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		server.Shutdown()
	}
	run(plain, plain.redis)
	run(ours, ours)
	// asynq's scripts are known by their keys, and those may change.
	if len(ours.ends.queues) == 0 {
		t.Error("asynq's script that ends a task was not known")
	}
	if len(ours.taker.empty) == 0 {
		t.Error("asynq's script that takes a task was not known")
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

// A task that is not active any more has not been ended here, nor one whose lease is over: it may be
// another worker's. The others have.
func TestEndings_notActive(t *testing.T) {
	t.Parallel()
	s := newShelter(t, 10)
	s.enqueue(t, "default", 1, 4)
	s.take(t, "default")
	const list = "asynq:{default}:"
	s.redis.LRem(t.Context(), list+"active", 0, "2")
	s.redis.Set(t.Context(), list+"processed", int64(math.MaxInt64-1), 0)
	var group []*ending
	for _, id := range []string{"1", "2", "3", "4"} {
		until := time.Now().Add(time.Minute)
		if id == "4" {
			until = time.Now()
		}
		group = append(group, newEnding(id, taskKey("default", id), until))
	}
	s.ends.queue(list + "active").endAll(slices.Clone(group))
	want := []error{nil, errNotActive, nil, context.DeadlineExceeded}
	for i, e := range group {
		if err := <-e.done; !errors.Is(err, want[i]) {
			t.Errorf("task %s: %v, want %v", e.id, err, want[i])
		}
	}
	if n := s.redis.Exists(t.Context(), taskKey("default", "1"), taskKey("default", "3")).Val(); n != 0 {
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
func TestEndings_sender(t *testing.T) {
	t.Parallel()
	s := newShelter(t, 10)
	s.enqueue(t, "default", 1, 3)
	for range 3 {
		s.take(t, "default")
	}
	list := "asynq:{default}:"
	asynqEnds := func(id string) error {
		keys := []string{list + "active", list + "lease", taskKey("default", id), list + "processed:today", list + "processed"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return s.EvalSha(ctx, "sha", keys, id, time.Now().Add(time.Hour).Unix(), int64(math.MaxInt64)).Err()
	}
	one, two, three := taskKey("default", "1"), taskKey("default", "2"), taskKey("default", "3")
	if err := s.ends.end([]string{one})[0]; err != nil || s.redis.Exists(t.Context(), one).Val() != 0 {
		t.Errorf("%v, want the task to have ended", err)
	}
	s.ends.forget(one) // its handler has returned
	if err := asynqEnds("1"); err != nil {
		t.Errorf("%v: asynq should hear that it has ended", err)
	}
	s.redis.LRem(t.Context(), list+"active", 0, "2")
	if err := s.ends.end([]string{two})[0]; !errors.Is(err, errNotActive) {
		t.Errorf("%v, want that it is not active", err)
	}
	s.ends.forget(two)
	if err := asynqEnds("2"); !errors.Is(err, errNotActive) {
		t.Errorf("%v: asynq should hear that it is not active", err)
	}
	s.ends.forget(three)
	if err := s.ends.end([]string{three})[0]; !errors.Is(err, errNotGiven) {
		t.Errorf("%v: nobody has this task any more", err)
	}
	if err := asynqEnds("3"); err != nil {
		t.Error(err)
	}
	if got := s.redis.Get(t.Context(), list+"processed").Val(); got != "2" || len(s.ends.given) != 0 {
		t.Errorf("processed %s, want 2; remembered: %v", got, s.ends.given)
	}
}

// Near the end of its lease a task is asynq's to end, which knows whether the lease was prolonged.
func TestEndings_lease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEndings(&counter{asked: map[string]int{}})
		lease := time.Now().Add(30 * time.Second).Unix()
		e.give(taken{id: "1", keys: takeKeys("default"), lease: lease, prefix: taskKey("default", "")})
		<-time.After(30*time.Second - leaseMargin)
		if err := e.end([]string{taskKey("default", "1")})[0]; !errors.Is(err, errNotGiven) {
			t.Errorf("%v, want no end with %v left", err, leaseMargin)
		}
	})
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
		message := client.HGet(t.Context(), taskKey("default", info.ID), "msg").Val()
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

// A server whose places are taken waits a moment until some are free, and no longer.
func TestPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(40)
		for range 5 {
			p.give() // asynq begins none of them
		}
		if n := p.wait(); n != mostAtOnce {
			t.Errorf("%d places at the beginning, want %d", n, mostAtOnce)
		}
		for range 5 {
			p.give()
		}
		if n := p.wait(); n != 30 {
			t.Errorf("%d places when ten tasks are about to begin, want 30", n)
		}
		<-time.After(shelfLife + 1)
		for range 40 {
			p.enter()
		}
		start := time.Now()
		if n := p.wait(); n != 1 || time.Since(start) != gatherFor {
			t.Errorf("%d places after %v, want 1 after %v: asynq has one", n, time.Since(start), gatherFor)
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
			t.Errorf("%d places after %v, want %d at once", n, time.Since(start), p.enough)
		}
	})
}

// What comes while round trips are under way goes together afterwards, and nothing is done twice.
func TestTrips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var done [][]int
		under := make(chan struct{})
		trips := newTrips(func(items []int) {
			<-under
			mu.Lock()
			defer mu.Unlock()
			done = append(done, items)
		})
		for i := range 10 {
			go trips.add(i)
			synctest.Wait()
		}
		for range mostTrips + 1 {
			under <- struct{}{}
			synctest.Wait()
		}
		slices.SortFunc(done, func(a, b []int) int { return a[0] - b[0] })
		if got := fmt.Sprint(done); got != "[[0] [1] [2 3 4 5 6 7 8 9]]" {
			t.Errorf("round trips %s", got)
		}
	})
}
