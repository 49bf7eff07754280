package embedded_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func start(t *testing.T) *embedded.Redis {
	t.Helper()
	r, err := embedded.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// queue is an asynq client on the embedded server. The server is closed last.
func queue(t *testing.T, r *embedded.Redis) (*asynq.Client, *asynq.Inspector, redis.UniversalClient) {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return asynq.NewClientFromRedisClient(c), asynq.NewInspectorFromRedisClient(c), c
}

// work runs an asynq server until the test ends.
func work(t *testing.T, c redis.UniversalClient, handler asynq.HandlerFunc) {
	t.Helper()
	s := asynq.NewServerFromRedisClient(c, asynq.Config{
		Concurrency:              4,
		TaskCheckInterval:        10 * time.Millisecond,
		DelayedTaskCheckInterval: 10 * time.Millisecond,
		JanitorInterval:          100 * time.Millisecond,
		RetryDelayFunc:           func(int, error, *asynq.Task) time.Duration { return 10 * time.Millisecond },
		LogLevel:                 asynq.FatalLevel,
	})
	if err := s.Start(handler); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
}

func enqueue(t *testing.T, c *asynq.Client, name string, opts ...asynq.Option) *asynq.TaskInfo {
	t.Helper()
	info, err := c.EnqueueContext(t.Context(), asynq.NewTask(name, nil), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s after %v", what, patience)
	}
	panic("unreachable")
}

// eventually asks again and again until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s after %v", what, patience)
		case <-tick.C:
		}
	}
}

// A worker that looks at its Redis has nothing to warn of.
func TestRedis_check(t *testing.T) {
	_, _, client := queue(t, start(t))
	if got, err := redisconn.Check(t.Context(), client); err != nil || len(got.Warnings) > 0 {
		t.Errorf("%q, %v", got.Warnings, err)
	}
}

func TestRedis_scheduled(t *testing.T) {
	client, _, c := queue(t, start(t))
	ran := make(chan time.Time, 1)
	work(t, c, func(context.Context, *asynq.Task) error {
		ran <- time.Now()
		return nil
	})
	due := time.Now().Add(time.Second)
	enqueue(t, client, "later", asynq.ProcessAt(due))
	// asynq counts in whole seconds.
	if at := receive(t, "run", ran); at.Before(due.Truncate(time.Second)) {
		t.Errorf("ran %v too early", due.Sub(at))
	}
}

func TestRedis_retry(t *testing.T) {
	client, inspector, c := queue(t, start(t))
	tries := make(chan int, 3)
	work(t, c, func(ctx context.Context, _ *asynq.Task) error {
		n, _ := asynq.GetRetryCount(ctx)
		tries <- n
		if n < 2 {
			return errors.New("again")
		}
		return nil
	})
	info := enqueue(t, client, "again", asynq.MaxRetry(5), asynq.Retention(time.Hour))
	for want := range 3 {
		if got := receive(t, "try", tries); got != want {
			t.Errorf("retry count = %d, want %d", got, want)
		}
	}
	eventually(t, "completion", func() bool {
		info, err := inspector.GetTaskInfo("default", info.ID)
		return err == nil && info.State == asynq.TaskStateCompleted
	})
}

func TestRedis_deadLetter(t *testing.T) {
	client, inspector, c := queue(t, start(t))
	work(t, c, func(context.Context, *asynq.Task) error { return asynq.SkipRetry })
	info := enqueue(t, client, "never")
	eventually(t, "dead letter", func() bool {
		info, err := inspector.GetTaskInfo("default", info.ID)
		return err == nil && info.State == asynq.TaskStateArchived
	})
}

func TestRedis_unique(t *testing.T) {
	client, _, _ := queue(t, start(t))
	const ttl = 2 * time.Second
	begin := time.Now()
	enqueue(t, client, "once", asynq.Unique(ttl))
	again := func() error {
		_, err := client.EnqueueContext(t.Context(), asynq.NewTask("once", nil), asynq.Unique(ttl))
		return err
	}
	if err := again(); !errors.Is(err, asynq.ErrDuplicateTask) {
		t.Fatalf("second task: %v, want it refused", err)
	}
	eventually(t, "end of the lock", func() bool { return again() == nil })
	if took := time.Since(begin); took < ttl-300*time.Millisecond {
		t.Errorf("the lock ended after %v, want %v", took, ttl)
	}
}

func TestRedis_retention(t *testing.T) {
	client, inspector, c := queue(t, start(t))
	work(t, c, func(_ context.Context, task *asynq.Task) error {
		_, err := task.ResultWriter().Write([]byte("250 OK"))
		return err
	})
	kept := enqueue(t, client, "kept", asynq.Retention(time.Hour))
	short := enqueue(t, client, "short", asynq.Retention(time.Second))
	eventually(t, "completion", func() bool {
		info, err := inspector.GetTaskInfo("default", kept.ID)
		return err == nil && info.State == asynq.TaskStateCompleted && string(info.Result) == "250 OK"
	})
	eventually(t, "end of the retention", func() bool {
		_, err := inspector.GetTaskInfo("default", short.ID)
		return errors.Is(err, asynq.ErrTaskNotFound)
	})
	if _, err := inspector.GetTaskInfo("default", kept.ID); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

func TestRedis_expiry(t *testing.T) {
	_, _, c := queue(t, start(t))
	if err := c.Set(t.Context(), "short", "x", 500*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(t.Context(), "long", "x", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "expiry", func() bool { return errors.Is(c.Get(t.Context(), "short").Err(), redis.Nil) })
	if ttl := c.TTL(t.Context(), "long").Val(); ttl >= time.Hour || ttl < time.Hour-patience {
		t.Errorf("time to live = %v, want a little less than an hour", ttl)
	}
}

func TestStart_address(t *testing.T) {
	r := start(t)
	host, _, err := net.SplitHostPort(r.Addr())
	if err != nil || host != "127.0.0.1" {
		t.Errorf("address = %s, %v", r.Addr(), err)
	}
	if second, err := embedded.Start(r.Addr()); err == nil {
		second.Close()
		t.Error("an address that is taken is accepted")
	}
	addr := r.Addr()
	r.Close()
	r.Close()
	if conn, err := net.Dial("tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("a closed server takes connections")
	}
	again, err := embedded.Start(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	if again.Addr() != addr {
		t.Errorf("address = %s, want %s", again.Addr(), addr)
	}
}

func TestRedis_Close_endsConnections(t *testing.T) {
	r := start(t)
	conn, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "*1\r\n$4\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("after Close: %v, want the end of the connection", err)
	}
}
