package asynqbatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// scripts records which queues Redis is asked about.
type scripts struct {
	mu    sync.Mutex
	asked map[string]int // by the last part of the first key
}

func (*scripts) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*scripts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *scripts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			key, _ := cmd.Args()[3].(string)
			s.mu.Lock()
			s.asked[key]++
			s.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

func (s *scripts) of(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key]
}

// A server asks Redis nothing of a queue that is asleep, and serves it when it is awake: the scripts of the real asynq
// are known.
func TestBroker_asleep(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	seen := &scripts{asked: map[string]int{}}
	client.AddHook(seen)
	var awake atomic.Bool
	took := make(chan string, 10)
	c := New(client, Config{
		LostField: "test:lost", Took: func(queue string) { took <- queue },
		Asleep: func(queue string) bool { return queue == "sleepy" && !awake.Load() },
	})
	s := c.NewServer(ServerConfig{Config: asynq.Config{
		Concurrency: 2, Queues: map[string]int{"sleepy": 1, "busy": 1}, TaskCheckInterval: 10 * time.Millisecond,
		DelayedTaskCheckInterval: 100 * time.Millisecond, JanitorInterval: 100 * time.Millisecond, ShutdownTimeout: time.Second,
	}})
	ended := make(chan string, 10)
	if err := s.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		ended <- task.Type()
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	producer := asynq.NewClientFromRedisClient(server.Client(t))
	for _, queue := range []string{"sleepy", "busy"} {
		if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask(queue, nil), asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-ended; got != "busy" {
		t.Fatalf("a task of the queue %s was taken while that is asleep", got)
	}
	if got := <-took; got != "busy" {
		t.Errorf("took from %s", got)
	}
	asked := func(queue string) (n int, all bool) {
		all = true
		for _, key := range []string{"pending", "scheduled", "retry", "completed"} {
			count := seen.of("asynq:{" + queue + "}:" + key)
			n += count
			all = all && count > 0
		}
		return n, all
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, all := asked("busy"); all {
			break // its forwarder and janitor have run
		}
		if time.Now().After(deadline) {
			t.Fatal("asynq does not ask with the keys that are known here")
		}
	}
	if n, _ := asked("sleepy"); n != 0 {
		t.Errorf("Redis was asked %d times about the queue that is asleep: %v", n, seen.asked)
	}
	awake.Store(true)
	if got := <-ended; got != "sleepy" {
		t.Errorf("got a task of %s", got)
	}
}

// What asynq's janitor would delete is deleted, and nothing else.
func TestDeleteExpired(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	now := time.Now()
	for i := range 250 {
		id := string(rune('a'+i%26)) + time.Duration(i).String()
		until := now.Add(-time.Minute)
		if i%50 == 0 {
			until = now.Add(time.Minute)
		}
		client.HSet(ctx, TaskKey("default", id), "state", "completed")
		client.ZAdd(ctx, "asynq:{default}:completed", redis.Z{Score: float64(until.Unix()), Member: id})
	}
	if err := DeleteExpired(ctx, client, "default", now); err != nil {
		t.Fatal(err)
	}
	left, records := client.ZCard(ctx, "asynq:{default}:completed").Val(), len(client.Keys(ctx, TaskKey("default", "*")).Val())
	if left != 5 || records != 5 {
		t.Errorf("%d in the set and %d records are left, want 5 of each", left, records)
	}
}

// The servers of any program are known by their queues, while they live.
func TestServedQueues(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	if served, err := ServedQueues(t.Context(), client); err != nil || len(served) != 0 {
		t.Fatal(served, err)
	}
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Queues: map[string]int{"images": 3, "reports": 1}, ShutdownTimeout: time.Second, LogLevel: asynq.FatalLevel,
	})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	served, err := ServedQueues(t.Context(), client)
	for deadline := time.Now().Add(10 * time.Second); err == nil && len(served) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		served, err = ServedQueues(t.Context(), client) // it says so in a goroutine of its own
	}
	if err != nil || len(served) != 2 || !served["images"] || !served["reports"] {
		t.Errorf("%v, %v", served, err)
	}
	server.Shutdown()
	if served, err := ServedQueues(t.Context(), client); err != nil || len(served) != 0 {
		t.Errorf("after its end: %v, %v", served, err)
	}
}

// What was fetched before its queue fell asleep is taken all the same.
func TestBroker_asleep_prefetched(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	producer := asynq.NewClientFromRedisClient(client)
	for range 3 {
		if _, err := producer.EnqueueContext(ctx, asynq.NewTask("mail", nil)); err != nil {
			t.Fatal(err)
		}
	}
	asleep := false
	b := newBroker(client, 10, nil)
	b.base.cfg.Asleep = func(string) bool { return asleep }
	take := func() error {
		return b.EvalSha(ctx, "any", fetchKeysOf("default"), time.Now().Add(time.Minute).Unix(), TaskKey("default", "")).Err()
	}
	for i := range 3 {
		if err := take(); err != nil {
			t.Fatalf("task %d: %v", i, err)
		}
		asleep = true
	}
	if _, err := producer.EnqueueContext(ctx, asynq.NewTask("mail", nil)); err != nil {
		t.Fatal(err)
	}
	if err := take(); !errors.Is(err, redis.Nil) {
		t.Errorf("a queue that is asleep was asked: %v", err)
	}
}
