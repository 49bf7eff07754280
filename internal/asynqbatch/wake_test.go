package asynqbatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// waiting is a server that looks for tasks once an hour: what it gets before, a hint has told it of.
type waiting struct {
	*Client
	tasks chan string // that its handler has got, by their types
}

// startWaiting starts a server with an ID, which hears its hints.
func startWaiting(t *testing.T, client redis.UniversalClient, id string, queues ...string) waiting {
	t.Helper()
	w := waiting{tasks: make(chan string, 1000)}
	w.Client = New(client, Config{LostField: "test:lost", OwnerField: "test:owner", Waiter: func() string { return id }})
	cfg := asynq.Config{Concurrency: 10, Queues: map[string]int{}, TaskCheckInterval: 2 * time.Hour, DelayedTaskCheckInterval: time.Second, ShutdownTimeout: time.Second}
	for _, name := range queues {
		cfg.Queues[name] = 1
	}
	s := w.NewServer(ServerConfig{Config: cfg})
	if err := s.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		w.tasks <- task.Type()
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	sub := client.Subscribe(t.Context(), wire.WakeChannelOf(id))
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for hint := range sub.Channel() {
			w.Wake(hint.Payload)
		}
	})
	t.Cleanup(func() {
		s.Stop()
		s.Shutdown()
		_ = sub.Close()
		all.Wait()
	})
	return w
}

func (w waiting) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-w.tasks:
		if got != want {
			t.Fatalf("task %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing wakes the server for task %s", want)
	}
}

// eventuallyWaits waits until somebody waits for a task of a queue, and returns who.
func eventuallyWaits(t *testing.T, client redis.UniversalClient, queue string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if id := client.Get(t.Context(), wire.WaitingKey(queue)).Val(); id != "" {
			return id
		}
	}
	t.Fatalf("nobody waits for a task of %s", queue)
	return ""
}

func enqueuer(client redis.UniversalClient) *asynq.Client {
	return asynq.NewClientFromRedisClient(NewEnqueuer(client, nil))
}

// A server that waits gets each task at once, of each of its queues, and also those that are moved there when they are due.
func TestWake(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, redistest.Options{})
	client := redisServer.Client(t)
	w := startWaiting(t, client, "w1", "a", "b", "c")
	producer := enqueuer(redisServer.Client(t))
	for i := range 30 {
		queue := string("abc"[i%3])
		eventuallyWaits(t, client, queue)
		if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask(fmt.Sprint(i), nil), asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
		w.want(t, fmt.Sprint(i))
	}
	if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("later", nil), asynq.Queue("b"), asynq.ProcessIn(1100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	w.want(t, "later")
}

// Of several workers that wait one is told, and the others ask nothing. A worker that has died costs one hint.
func TestWake_one(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, redistest.Options{})
	client := redisServer.Client(t)
	client.Set(t.Context(), wire.WaitingKey("a"), "dead", time.Minute)
	workers := []waiting{startWaiting(t, client, "w1", "a"), startWaiting(t, client, "w2", "a"), startWaiting(t, client, "w3", "a")}
	for deadline := time.Now().Add(20 * time.Second); calls(t, client, "lrange") < len(workers); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not all of them have looked")
		}
	}
	producer := enqueuer(redisServer.Client(t))
	enqueue := func() {
		t.Helper()
		if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("mail", nil), asynq.Queue("a")); err != nil {
			t.Fatal(err)
		}
	}
	enqueue() // nobody hears of it
	if waits := client.Exists(t.Context(), wire.WaitingKey("a")).Val(); waits != 0 {
		t.Fatal("the one that is dead still waits")
	}
	workers[0].Wake("a") // as if it looked
	workers[0].want(t, "mail")
	eventuallyWaits(t, client, "a")
	const tasks = 20
	asked := calls(t, client, "lrange")
	for range tasks {
		published := calls(t, client, "publish")
		enqueue()
		workers[0].want(t, "mail") // the others have not looked since
		eventuallyWaits(t, client, "a")
		if n := calls(t, client, "publish") - published; n != 1 {
			t.Fatalf("%d hints for a task", n)
		}
	}
	if n := calls(t, client, "lrange") - asked; n > 3*tasks { // for each, and that there are no more
		t.Errorf("Redis is asked %d times for %d tasks", n, tasks)
	}
}

// calls is how often Redis has done a command, in scripts too.
func calls(t *testing.T, client redis.UniversalClient, command string) (n int) {
	t.Helper()
	for line := range strings.Lines(client.Info(t.Context(), "commandstats").Val()) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			_, _ = fmt.Sscan(strings.ReplaceAll(rest, ",", " "), &n)
		}
	}
	return n
}

// To look at an empty queue costs Redis no more commands for the note that a worker waits, and the note is written once in a while: what changes
// nothing burdens no append-only file.
func TestFetcher_idleCommands(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{AppendOnly: redistest.EverySec}).Client(t)
	b := newBroker(client, 10, nil)
	b.base.cfg.Waiter = func() string { return "w1" }
	look := func() {
		clear(b.fetcher.empty) // as if time had passed
		if err := b.EvalSha(t.Context(), "any", fetchKeysOf("default"), 1, TaskKey("default", "")).Err(); !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		for _, command := range []string{"evalsha", "eval", "exists", "time", "rpoplpush", "lrange", "set", "get", "hget", "expire"} {
			n += calls(t, client, command)
		}
		return n
	}
	written := func() string {
		_, rest, _ := strings.Cut(client.Info(t.Context(), "persistence").Val(), "aof_current_size:")
		size, _, _ := strings.Cut(rest, "\r\n")
		return size
	}
	look()
	const n = 100
	commands, bytes := count(), written()
	for range n {
		look()
	}
	if each := float64(count()-commands) / n; each > 4 {
		t.Errorf("%.1f commands for a look", each)
	}
	if now := written(); now != bytes || now == "" {
		t.Errorf("the append-only file has %s bytes, and had %s", now, bytes)
	}
}

// Nobody waits for tasks of a queue that is full: nothing is published.
func TestEnqueuer_busy(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	b := newBroker(client, 10, nil)
	b.base.cfg.Waiter = func() string { return "w1" }
	producer := enqueuer(client)
	for range 100 {
		if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("mail", nil)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() error {
		return b.EvalSha(t.Context(), "any", fetchKeysOf("default"), 1, TaskKey("default", "")).Err()
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if waits := client.Exists(t.Context(), wire.WaitingKey("default")).Val(); waits != 0 || calls(t, client, "publish") != 0 {
		t.Errorf("%d workers wait, %d hints", waits, calls(t, client, "publish"))
	}
}

// A hint that comes while Redis is being asked is not forgotten: the server asks again before it waits.
func TestWake_meanwhile(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, redistest.Options{})
	client := redisServer.Client(t)
	var c *Client
	var once sync.Once
	producer := enqueuer(redisServer.Client(t))
	client.AddHook(after{func(cmd redis.Cmder, err error) {
		if strings.HasPrefix(cmd.Name(), "eval") && err == nil && strings.HasSuffix(fmt.Sprint(cmd.Args()[3]), "{a}:pending") { // it has found nothing
			once.Do(func() {
				if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("mail", nil), asynq.Queue("a")); err != nil {
					t.Error(err)
				}
				c.Wake("a")
			})
		}
	}})
	c = New(client, Config{LostField: "test:lost", OwnerField: "test:owner"})
	got := make(chan string, 1)
	s := c.NewServer(ServerConfig{Config: asynq.Config{Concurrency: 1, Queues: map[string]int{"a": 1}, TaskCheckInterval: 2 * time.Hour, ShutdownTimeout: time.Second}})
	if err := s.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error { got <- task.Type(); return nil })); err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	waiting{c, got}.want(t, "mail")
}

// after calls a function with each command that Redis has answered, and the error that it will have.
type after struct {
	do func(cmd redis.Cmder, err error)
}

func (after) DialHook(next redis.DialHook) redis.DialHook { return next }

func (after) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a after) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		a.do(cmd, err)
		return err
	}
}

// before calls a function with each command before Redis gets it.
type before struct{ do func(redis.Cmder) }

func (before) DialHook(next redis.DialHook) redis.DialHook { return next }

func (before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b before) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		b.do(cmd)
		return next(ctx, cmd)
	}
}

// A program that may not publish queues its tasks all the same.
func TestEnqueuer_denied(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, redistest.Options{})
	admin := redisServer.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "program", "on", ">secret", "~*", "resetchannels", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: redisServer.Addr(), Username: "program", Password: "secret"})
	defer func() { _ = client.Close() }()
	e := NewEnqueuer(client, nil)
	for i, waits := range []bool{false, true} {
		if waits {
			admin.Set(t.Context(), wire.WaitingKey("default"), "w1", time.Minute)
		}
		if _, err := asynq.NewClientFromRedisClient(e).EnqueueContext(t.Context(), asynq.NewTask("mail", nil)); err != nil {
			t.Fatal(err)
		}
		if n := admin.LLen(t.Context(), "asynq:{default}:pending").Val(); n != int64(i+1) || e.Denied() != waits {
			t.Errorf("%d tasks, denied: %v", n, e.Denied())
		}
	}
}

// What is in Redis is what asynq's own client leaves, and an ID that is there is asynq's error.
func TestEnqueuer_record(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	opts := []asynq.Option{asynq.TaskID("one"), asynq.MaxRetry(3), asynq.Retention(time.Hour), asynq.Timeout(time.Minute)}
	task := asynq.NewTaskWithHeaders("mail", []byte("payload"), map[string]string{"trace": "1"})
	for queue, c := range map[string]*asynq.Client{"asynq": asynq.NewClientFromRedisClient(client), "ours": enqueuer(client)} {
		if _, err := c.EnqueueContext(t.Context(), task, append(opts, asynq.Queue(queue))...); err != nil {
			t.Fatal(err)
		}
		if _, err := c.EnqueueContext(t.Context(), task, append(opts, asynq.Queue(queue))...); !errors.Is(err, asynq.ErrTaskIDConflict) {
			t.Errorf("%s: the same ID again: %v", queue, err)
		}
	}
	theirs, ours := client.HGetAll(t.Context(), TaskKey("asynq", "one")).Val(), client.HGetAll(t.Context(), TaskKey("ours", "one")).Val()
	theirs["msg"] = strings.Replace(theirs["msg"], "\x22\x05asynq", "\x22\x04ours", 1)
	delete(theirs, "pending_since")
	if since := ours["pending_since"]; len(since) != len("1790000000000000000") {
		t.Errorf("pending since %q", since)
	}
	delete(ours, "pending_since")
	if fmt.Sprint(ours) != fmt.Sprint(theirs) {
		t.Errorf("%q, asynq writes %q", ours, theirs)
	}
	if keys := client.Keys(t.Context(), "*{ours}*").Val(); len(keys) != 2 {
		t.Errorf("keys %v", keys)
	}
}

// Tasks of many goroutines go together, in their queues, each with its own answer.
func TestEnqueuer_together(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	e := NewEnqueuer(client, nil)
	producer := asynq.NewClientFromRedisClient(e)
	enqueue := func(i int) error {
		_, err := producer.EnqueueContext(t.Context(), asynq.NewTask("mail", nil), asynq.TaskID(fmt.Sprint(i/2)), asynq.Queue(string("ab"[i/2%2])))
		return err
	}
	const n = 2000 // each ID twice
	before := calls(t, client, "evalsha")
	var all sync.WaitGroup
	var mu sync.Mutex
	conflicts := 0
	for g := range 100 {
		all.Go(func() {
			for i := g; i < n; i += 100 {
				err := enqueue(i)
				mu.Lock()
				if errors.Is(err, asynq.ErrTaskIDConflict) {
					conflicts++
				} else if err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	a, b := client.LLen(t.Context(), "asynq:{a}:pending").Val(), client.LLen(t.Context(), "asynq:{b}:pending").Val()
	if conflicts != n/2 || a != n/4 || b != n/4 {
		t.Errorf("%d conflicts, %d and %d tasks", conflicts, a, b)
	}
	times := map[string]bool{} // by which they are put in order
	for _, key := range client.Keys(t.Context(), "asynq:{a}:t:*").Val() {
		times[client.HGet(t.Context(), key, "pending_since").Val()] = true
	}
	if len(times) < n/4-n/100 { // two round trips at once know nothing of each other
		t.Errorf("%d different times of %d tasks", len(times), n/4)
	}
	if trips := calls(t, client, "evalsha") - before; trips > n/2 {
		t.Errorf("%d round trips for %d tasks", trips, n)
	}
}

// A call that ends while Redis is silent is told whether its task may be there.
func TestEnqueuer_ends(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, redistest.Options{})
	client := redisServer.Client(t)
	calls := &recordedCalls{}
	producer := asynq.NewClientFromRedisClient(NewEnqueuer(client, calls))
	if _, err := producer.EnqueueContext(t.Context(), asynq.NewTask("first", nil)); err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 100)
	client.AddHook(before{func(redis.Cmder) { begun <- struct{}{} }})
	redisServer.Pause()
	var busy sync.WaitGroup
	for range 2 { // as many round trips as there are at once
		busy.Go(func() { _, _ = producer.EnqueueContext(t.Context(), asynq.NewTask("silent", nil)) })
		<-begun
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := producer.EnqueueContext(ctx, asynq.NewTask("dropped", nil)); err == nil {
		t.Error("it is queued though Redis is silent")
	}
	if calls.dropped != 1 {
		t.Errorf("%d tasks are known not to be written", calls.dropped)
	}
	redisServer.Resume()
	busy.Wait()
	if n := client.LLen(t.Context(), "asynq:{default}:pending").Val(); n != 3 {
		t.Errorf("%d tasks, want 3", n)
	}
}

type recordedCalls struct{ dropped int }

func (*recordedCalls) Joint(calls []context.Context) (context.Context, func()) {
	return calls[0], func() {}
}

func (r *recordedCalls) Dropped(context.Context) { r.dropped++ }
