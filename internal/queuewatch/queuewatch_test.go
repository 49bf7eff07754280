package queuewatch_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/queuewatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// watch runs a Watcher of the queues and returns it, and what it finds.
func watch(t *testing.T, client redis.UniversalClient, idle time.Duration, queues ...string) (*queuewatch.Watcher, <-chan string) {
	t.Helper()
	found := make(chan string, 1000)
	w := queuewatch.New(client, queuewatch.Config{
		Idle: idle, Found: func(queue string) { found <- queue },
		Expired: func(context.Context, string, time.Time) error { return nil },
	})
	w.Add(false, queues...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w, found
}

func wantFound(t *testing.T, found <-chan string, want string) {
	t.Helper()
	select {
	case got := <-found:
		if got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Errorf("%q was not found", want)
	}
}

// until waits until something is true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
	}
}

// What can be done in a queue wakes it, whatever it is; what cannot does not. Nobody hints.
func TestWatcher(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	now := time.Now()
	add := func(queue, set string, at time.Time) {
		client.ZAdd(ctx, "asynq:{"+queue+"}:"+set, redis.Z{Score: float64(at.Unix()), Member: "task"})
	}
	add("later", "scheduled", now.Add(time.Hour))
	add("due", "scheduled", now.Add(-time.Second))
	add("again", "retry", now.Add(-time.Second))
	add("again-later", "retry", now.Add(time.Hour))
	add("held", "lease", now.Add(20*time.Second))
	add("died", "lease", now.Add(-time.Minute))
	add("done", "completed", now.Add(-time.Minute))
	client.LPush(ctx, "asynq:{pending}:pending", "task")
	client.LPush(ctx, "asynq:{paused}:pending", "task")
	client.Set(ctx, "asynq:{paused}:paused", "1", 0)
	queues := []string{"later", "due", "again", "again-later", "held", "died", "done", "pending", "paused", "empty"}
	for i := range 700 { // more than one command asks for
		queues = append(queues, fmt.Sprintf("empty-%d", i))
	}
	w, found := watch(t, client, time.Hour, queues...)
	var got []string
	for range 4 {
		select {
		case name := <-found:
			got = append(got, name)
		case <-time.After(patience):
			t.Fatalf("found %v alone", got)
		}
	}
	if slices.Sort(got); !slices.Equal(got, []string{"again", "died", "due", "pending"}) {
		t.Errorf("found %v", got)
	}
	if w.Asleep("pending") || !w.Asleep("empty") || w.Asleep("unknown") {
		t.Error("asleep is not what it should be")
	}
	// What has tasks that cannot be taken is looked at further.
	client.LPush(ctx, "asynq:{later}:pending", "other")
	wantFound(t, found, "later")
	client.Del(ctx, "asynq:{paused}:paused")
	wantFound(t, found, "paused")
	add("again-later", "retry", now.Add(-time.Second))
	wantFound(t, found, "again-later")
	select {
	case name := <-found:
		t.Errorf("found %q too", name)
	default:
	}
}

// A queue is asleep again when nothing was taken from it for a while, and is found again.
func TestWatcher_again(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	client.LPush(t.Context(), "asynq:{default}:pending", "task")
	w, found := watch(t, client, 100*time.Millisecond, "default")
	wantFound(t, found, "default")
	wantFound(t, found, "default")
	client.Del(t.Context(), "asynq:{default}:pending")
	until(t, "it falls asleep", func() bool { return w.Asleep("default") })
	before := time.Now()
	w.Took("default")
	if w.Asleep("default") && time.Since(before) < 100*time.Millisecond {
		t.Error("a queue is asleep from which a task was taken just now")
	}
}

// In a cluster the queues are in different places.
func TestWatcher_cluster(t *testing.T) {
	t.Parallel()
	client := redistest.StartCluster(t, 3, redistest.Options{}).Client(t)
	queues := []string{"a", "b", "c", "d", "e", "f"}
	_, found := watch(t, client, time.Hour, queues...)
	for _, name := range queues {
		client.LPush(t.Context(), "asynq:{"+name+"}:pending", "task")
	}
	for range queues {
		select {
		case name := <-found:
			queues = slices.DeleteFunc(queues, func(q string) bool { return q == name })
		case <-time.After(patience):
		}
	}
	if len(queues) > 0 {
		t.Errorf("not found: %v", queues)
	}
	until(t, "somebody listens", func() bool {
		var listen atomic.Int64
		err := client.ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
			listen.Add(node.PubSubNumSub(ctx, wire.WakeChannel).Val()[wire.WakeChannel])
			return nil
		})
		return err == nil && listen.Load() > 0
	})
	queuewatch.NewHints(client).Queued(t.Context(), "b", true)
	wantFound(t, found, "b")
}

// A hint wakes a queue though nothing is in it yet that a look would find, once in a while for each queue.
func TestHints(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	_, found := watch(t, client, time.Hour, "default", "bulk")
	until(t, "somebody listens", func() bool {
		return client.PubSubNumSub(t.Context(), wire.WakeChannel).Val()[wire.WakeChannel] > 0
	})
	hints := queuewatch.NewHints(server.Client(t))
	for range 1000 {
		hints.Queued(t.Context(), "default", true)
	}
	wantFound(t, found, "default")
	until(t, "bulk is found", func() bool {
		hints.Queued(t.Context(), "bulk", true) // which says nothing while the first hint is under way
		return len(found) > 0
	})
	wantFound(t, found, "bulk")
	select {
	case name := <-found:
		t.Errorf("another hint at %s", name)
	default:
	}
	until(t, "asynq's set of queues has both", func() bool { return client.SCard(t.Context(), wire.QueuesKey).Val() == 2 })
	hints = queuewatch.NewHints(client)
	hints.Queued(t.Context(), "later", false)
	until(t, "the name of a queue with a task for later is written", func() bool {
		return client.SIsMember(t.Context(), wire.QueuesKey, "later").Val()
	})
}

// Where Redis lets nobody publish, a hand-over is as good as without a hint.
func TestHints_forbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "program", "on", ">secret", "~*", "resetchannels", "+@all", "-publish", "-time").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "program", Password: "secret"})
	defer func() { _ = client.Close() }()
	start := time.Now()
	queuewatch.NewHints(client).Queued(t.Context(), "default", true)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	until(t, "the queue's name is written", func() bool { return admin.SIsMember(t.Context(), wire.QueuesKey, "default").Val() })
	// The worker's user may not listen either, nor ask for the time: it looks.
	_, found := watch(t, client, time.Hour, "default", "due")
	admin.ZAdd(t.Context(), "asynq:{due}:scheduled", redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: "task"})
	wantFound(t, found, "due")
	producer := asynq.NewClientFromRedisClient(client)
	if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("mail", nil)); err != nil {
		t.Fatal(err)
	}
	wantFound(t, found, "default")
}
