package asynqbatch

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// asynqMoves asks as asynq does when a handler has returned, with each of its scripts.
func (s fixture) asynqMoves(ctx context.Context, what, id string) error {
	list := "asynq:{default}:"
	task, now, forever := TaskKey("default", id), time.Now().Unix(), int64(math.MaxInt64)
	all := map[string]struct {
		keys []string
		args []any
	}{
		"done":     {[]string{list + "active", list + "lease", task, list + "processed:today", list + "processed"}, []any{id, now, forever}},
		"unlock":   {[]string{list + "active", list + "lease", task, list + "processed:today", list + "processed", list + "unique:x"}, []any{id, now, forever}},
		"complete": {[]string{list + "active", list + "lease", list + "completed", task, list + "processed:today", list + "processed"}, []any{id, now, now + 60, "message", forever}},
		"requeue":  {[]string{list + "active", list + "lease", list + "pending", task}, []any{id}},
		"retry": {
			[]string{task, list + "active", list + "lease", list + "retry", list + "processed:today", list + "failed:today", list + "processed", list + "failed"},
			[]any{id, "message", now + 60, now, true, forever},
		},
		"archive": {
			[]string{task, list + "active", list + "lease", list + "archived", list + "processed:today", list + "failed:today", list + "processed", list + "failed", list + "t:"},
			[]any{id, "message", now, now - 60, 1, now, forever},
		},
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.EvalSha(ctx, "sha", all[what].keys, all[what].args...).Err()
}

// record is what is in Redis of a task, and where it is.
func (s fixture) record(t *testing.T, id string) string {
	t.Helper()
	fields := s.redis.HGetAll(t.Context(), TaskKey("default", id)).Val()
	places := []string{fmt.Sprintf("owner=%.5s state=%s msg=%d result=%s", fields["test:owner"], fields["state"], len(fields["msg"]), fields["result"])}
	for _, list := range []string{"active", "pending"} {
		if strings.Contains(" "+s.list(t, "default", list)+" ", " "+id+" ") {
			places = append(places, list)
		}
	}
	for _, set := range []string{"lease", "retry", "archived", "completed"} {
		if at, err := s.redis.ZScore(t.Context(), "asynq:{default}:"+set, id).Result(); err == nil {
			places = append(places, fmt.Sprint(set, "=", int(at)))
		}
	}
	return strings.Join(places, " ")
}

// What another worker has by now is left alone, whatever asynq wants to do to it: another worker has recovered
// the task, because this process stood still, and has fetched it.
func TestMove_another(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"done", "unlock", "complete", "requeue", "retry", "archive"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, 1)
			s.enqueue(t, "default", 1, 1)
			s.fetchOne(t, "default")
			s.redis.HSet(t.Context(), TaskKey("default", "1"), "test:owner", "another")
			before := s.record(t, "1")
			err := s.asynqMoves(t.Context(), what, "1")
			if after := s.record(t, "1"); after != before {
				t.Errorf("the other worker's task was %s, and is %s (%v)", before, after, err)
			}
			// Nor does a record come back that is gone.
			s.redis.Del(t.Context(), "asynq:{default}:active", "asynq:{default}:lease", TaskKey("default", "1"))
			_ = s.asynqMoves(t.Context(), what, "1")
			_ = s.HSet(t.Context(), TaskKey("default", "1"), "result", []byte("late"))
			if n := s.redis.Exists(t.Context(), TaskKey("default", "1")).Val(); n != 0 {
				t.Error("the record of a task that has ended is there again")
			}
		})
	}
}

// What is ours is moved, and nobody owns it then.
func TestMove_ours(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"done": "", "unlock": "", "complete": "completed completed", "requeue": "pending pending", "retry": "retry retry", "archive": "archived archived",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, 1)
			s.enqueue(t, "default", 1, 1)
			s.fetchOne(t, "default")
			if n := s.HSet(t.Context(), TaskKey("default", "1"), "result", []byte("mine")).Val(); n != 1 {
				t.Error("the result was not written")
			}
			if err := s.asynqMoves(t.Context(), what, "1"); err != nil {
				t.Fatal(err)
			}
			got := s.record(t, "1")
			state, list, _ := strings.Cut(want, " ")
			if !strings.Contains(got, "owner= state="+state) || !strings.Contains(got, list) || strings.Contains(got, "active") || strings.Contains(got, "lease") {
				t.Errorf("%s, want it %s", got, want)
			}
			if n := len(s.base.claims.byKey); n != 0 {
				t.Errorf("%d tasks are claimed still", n)
			}
		})
	}
}

// leases are the leases of tasks, in seconds from now by the clock of Redis.
func (s fixture) lease(t *testing.T, id string) int {
	t.Helper()
	now, err := s.redis.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return int(s.redis.ZScore(t.Context(), "asynq:{default}:lease", id).Val()) - int(now.Unix())
}

// Leases last as long by the clock of Redis, whatever this machine's says, and only the owner's is prolonged.
func TestMove_lease(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.enqueue(t, "default", 1, 2)
	hour := time.Now().Add(time.Hour).Unix() // as a wrong clock has it
	if err := s.EvalSha(t.Context(), "sha", fetchKeysOf("default"), hour, TaskKey("default", "")).Err(); err != nil {
		t.Fatal(err)
	}
	if got := s.lease(t, "1"); got < 28 || got > 30 {
		t.Errorf("a lease of %d s, want 30", got)
	}
	s.redis.HSet(t.Context(), TaskKey("default", "2"), "test:owner", "another")
	for _, id := range []string{"1", "2"} {
		s.redis.ZIncrBy(t.Context(), "asynq:{default}:lease", -20, id)
	}
	n, err := s.ZAddXX(t.Context(), "asynq:{default}:lease", redis.Z{Score: float64(hour), Member: "1"}, redis.Z{Score: float64(hour), Member: "2"}, redis.Z{Score: float64(hour), Member: "3"}).Result()
	if err != nil || n != 1 {
		t.Errorf("%d leases prolonged, %v, want one", n, err)
	}
	if got := s.lease(t, "1"); got < 28 || got > 30 {
		t.Errorf("our lease is %d s, want 30", got)
	}
	if got := s.lease(t, "2"); got > 10 {
		t.Errorf("the other worker's lease is %d s: it was prolonged", got)
	}
	if n := s.redis.ZCard(t.Context(), "asynq:{default}:lease").Val(); n != 2 {
		t.Errorf("%d leases, want 2", n)
	}
	if !s.base.claims.sure(TaskKey("default", "1")) || s.base.claims.sure(TaskKey("default", "2")) {
		t.Error("the first is ours, and the second is not")
	}
	// The list of leases that are over, for a worker whose clock is far ahead.
	list := func() []any {
		return s.EvalSha(t.Context(), "sha", []string{"asynq:{default}:lease"}, hour, TaskKey("default", "")).Val().([]any)
	}
	if got := list(); len(got) != 0 {
		t.Errorf("%d leases are over for asynq", len(got))
	}
	s.redis.ZIncrBy(t.Context(), "asynq:{default}:lease", -90, "1")
	if got := list(); len(got) != 1 {
		t.Errorf("%d leases are over for asynq, want the one", len(got))
	}
}

// Mail that was scheduled is due by the clock of Redis.
func TestMove_forward(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	client := asynq.NewClientFromRedisClient(s.redis)
	for id, in := range map[string]time.Duration{"soon": 45 * time.Second, "due": time.Millisecond} {
		if _, err := client.Enqueue(asynq.NewTask("test", nil), asynq.TaskID(id), asynq.ProcessIn(in)); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(10 * time.Millisecond)
	for _, clock := range []time.Duration{-time.Minute, time.Minute} {
		now := time.Now().Add(clock)
		keys := []string{"asynq:{default}:scheduled", "asynq:{default}:pending"}
		if err := s.EvalSha(t.Context(), "sha", keys, now.Unix(), TaskKey("default", ""), now.UnixNano(), "asynq:{default}:g:").Err(); err != nil {
			t.Fatal(err)
		}
		if got := s.list(t, "default", "pending"); got != "due" {
			t.Errorf("with a clock %v off, waiting: %q, want what is due", clock, got)
		}
	}
	if since, err := s.redis.HGet(t.Context(), TaskKey("default", "due"), "pending_since").Int64(); err != nil || time.Since(time.Unix(0, since)).Abs() > time.Minute {
		t.Errorf("it waits since %v, %v", time.Unix(0, since), err)
	}
}

// A retry comes after its pause by the clock of Redis, as this machine's has it, whatever that says.
func TestMove_retryAt(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.enqueue(t, "default", 1, 1)
	s.fetchOne(t, "default")
	if err := s.asynqMoves(t.Context(), "retry", "1"); err != nil {
		t.Fatal(err)
	}
	now := s.redis.Time(t.Context()).Val().Unix()
	if in := int64(s.redis.ZScore(t.Context(), "asynq:{default}:retry", "1").Val()) - now; in < 58 || in > 61 {
		t.Errorf("again in %d s, want a minute", in)
	}
}

// What nobody has begun goes back to the head of its queue, in the old order. asynq hears that it has been moved
// when its handler returns, and Redis hears nothing: the task may have been fetched again.
func TestClient_GiveBack(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 5)
	s.enqueue(t, "default", 1, 7)
	key := func(id string) string { return TaskKey("default", id) }
	since := func(id string) int64 {
		at, _ := s.redis.HGet(t.Context(), key(id), "pending_since").Int64()
		return at
	}
	came := map[string]int64{"1": since("1"), "2": since("2"), "4": since("4")}
	for range 5 {
		s.fetchOne(t, "default")
	}
	s.redis.HSet(t.Context(), key("3"), "test:owner", "another")
	if err := s.base.GiveBack(t.Context(), []string{key("4"), key("2"), key("3"), key("unknown"), key("1")}); err != nil {
		t.Fatal(err)
	}
	if active, waiting := s.list(t, "default", "active"), s.list(t, "default", "pending"); active != "5 3" || waiting != "7 6 4 2 1" {
		t.Errorf("active %q, waiting %q: 1, 2 and 4 were to go back to the head of the queue", active, waiting)
	}
	for _, id := range []string{"1", "2", "4"} {
		fields := s.redis.HGetAll(t.Context(), key(id)).Val()
		if fields["state"] != "pending" || fields["test:owner"] != "" || fields["test:lost"] != "" {
			t.Errorf("task %s: %v", id, fields)
		}
		if is := since(id); is == came[id] || is/100 != came[id]/100 {
			t.Errorf("task %s waits since %d, and came at %d: want that it does since then, and has been away", id, is, came[id])
		}
	}
	if n := s.redis.ZCard(t.Context(), "asynq:{default}:lease").Val(); n != 2 {
		t.Errorf("%d leases, want 2", n)
	}
	for range 3 {
		s.fetchOne(t, "default") // 1, 2 and 4 again, by this very process
	}
	before := s.record(t, "1")
	for _, id := range []string{"1", "2", "4"} {
		if err := s.asynqMoves(t.Context(), "retry", id); err != nil {
			t.Errorf("asynq hears %v of a task that was given back", err)
		}
	}
	if after := s.record(t, "1"); after != before || !strings.Contains(after, "active") {
		t.Errorf("the task was fetched again as %s, and is %s since asynq has heard the end of the first fetch", before, after)
	}
	if err := s.asynqMoves(t.Context(), "retry", "1"); err != nil || !strings.Contains(s.record(t, "1"), "retry=") {
		t.Errorf("%v, %s: the end of the second fetch counts", err, s.record(t, "1"))
	}
}

// What goes back of a mailing that is paused, or that is coming back, is set aside at once in its order: no other worker may be there to
// do that.
func TestClient_GiveBack_paused(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]string{"paused": wire.MailingPaused, "coming back": wire.MailingBack} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, 4)
			producer := asynq.NewClientFromRedisClient(NewEnqueuer(s.redis, nil))
			for i, mailing := range []string{"july", "august", "july", "july", "july"} {
				payload := fmt.Appendf(nil, `{"version":2,"mailing":%q,"message":{}}`, mailing)
				if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask(wire.TaskType, payload), asynq.TaskID(fmt.Sprint(9-i))); err != nil {
					t.Fatal(err)
				}
			}
			came := s.redis.HGet(t.Context(), TaskKey("default", "7"), "pending_since").Val()
			for range 4 {
				s.fetchOne(t, "default")
			}
			key := func(id string) string { return TaskKey("default", id) }
			s.redis.HSet(t.Context(), wire.PausesKey("default"), wire.FieldMailing+"july", state)
			for _, some := range [][]string{{key("6"), key("9")}, {key("8"), key("7")}} {
				if err := s.base.GiveBack(t.Context(), some); err != nil {
					t.Fatal(err)
				}
			}
			aside := strings.Join(s.redis.ZRange(t.Context(), wire.AsideKey("default", "july"), 0, -1).Val(), " ")
			if waiting := s.list(t, "default", "pending"); waiting != "5 8" || aside != "9 7 6" {
				t.Errorf("waiting %q, aside %q: want those of july that were fetched aside, in the order in which they came", waiting, aside)
			}
			fields := s.redis.HGetAll(t.Context(), key("7")).Val()
			if fields["state"] != "scheduled" || fields["test:owner"] != "" || fields["pending_since"] == "" {
				t.Errorf("what is aside: %v", fields)
			}
			if n := s.redis.Exists(t.Context(), "asynq:{default}:active", "asynq:{default}:lease").Val(); n != 0 {
				t.Error("something is in hand yet")
			}
			if at := s.redis.HGet(t.Context(), key("7"), "pending_since").Val(); at == came {
				t.Error("nobody can see that it was away")
			}
			s.redis.HSet(t.Context(), wire.PausesKey("default"), wire.FieldMailing+"july", wire.MailingBack)
			if err := Return(t.Context(), s.redis, "default", "july"); err != nil {
				t.Fatal(err)
			}
			if waiting := s.list(t, "default", "pending"); waiting != "5 8 6 7 9" {
				t.Errorf("back came %q", waiting)
			}
		})
	}
}

// A task is surely ours from its fetch, and after each time that Redis has said so, until ten seconds before its lease
// is over. A clock that jumps, as after a suspended machine wakes up, ends that.
func TestClient_Sure(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	var now time.Duration
	s.broker = newBrokerAt(s.redis, 1, func() bool { return true }, func() time.Duration { return now })
	s.enqueue(t, "default", 1, 1)
	s.fetchOne(t, "default")
	key := TaskKey("default", "1")
	sure := func(what string, want bool) {
		t.Helper()
		if got := s.base.claims.sure(key); got != want {
			t.Errorf("%s: surely ours is %t, want %t", what, got, want)
		}
	}
	sure("fetched", true)
	now += 19 * time.Second
	sure("19 s later", true)
	now += time.Second
	sure("20 s later", false)
	if err := s.ZAddXX(t.Context(), "asynq:{default}:lease", redis.Z{Member: "1"}).Err(); err != nil {
		t.Fatal(err)
	}
	sure("extended", true)
	now += 80 * time.Second
	sure("80 s asleep", false)
	if got := s.step(t, "mark", key, "a"); got != "yes" {
		t.Errorf("mark: %s, want that it is ours still: nobody has taken it", got)
	}
	sure("marked", true)
	now += 80 * time.Second
	s.redis.HSet(t.Context(), key, "test:owner", "another")
	if got := s.step(t, "mark", key, "b"); got != "no" {
		t.Errorf("mark: %s, want that it is another's", got)
	}
	sure("taken over", false)
	if got := s.redis.HGet(t.Context(), key, "mark").Val(); got != "a" {
		t.Errorf("mark %q in another worker's task", got)
	}
}

// A task is fresh for a second after its fetch, if nobody had done anything to it before.
func TestClient_Fresh(t *testing.T) {
	t.Parallel()
	for touched, want := range map[string]bool{"": true, "test:other": true, "test:cancelled": false} {
		s := newFixture(t, 1)
		var now time.Duration
		s.broker = newBrokerAt(s.redis, 1, func() bool { return true }, func() time.Duration { return now })
		s.enqueue(t, "default", 1, 1)
		key := TaskKey("default", "1")
		if touched != "" {
			s.redis.HSet(t.Context(), key, touched, "1")
		}
		if s.base.claims.isFresh(key) {
			t.Error("fresh before it was fetched")
		}
		s.fetchOne(t, "default")
		if got := s.base.claims.isFresh(key); got != want {
			t.Errorf("with %q it is fresh: %v, want %v", touched, got, want)
		}
		if now += freshFor; s.base.claims.isFresh(key) {
			t.Error("still fresh a second later")
		}
	}
}

// Claims that asynq never asks for again do not stay for ever.
func TestClaims_purge(t *testing.T) {
	t.Parallel()
	var now time.Duration
	c := newClaims(func() time.Duration { return now })
	for i := range 10 * fewClaims {
		c.fetched(fmt.Sprint(i), claim{owner: "a", ends: true}, now)
		now += time.Second / 10
	}
	if n := len(c.byKey); n > 3*fewClaims {
		t.Errorf("%d claims are kept", n)
	}
}
