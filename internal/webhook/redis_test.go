package webhook

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

// workerEnv makes this program a worker that posts to that URL, with the events of the Redis at REDIS_ADDR.
const workerEnv = "WEBHOOK_TEST_URL"

// TestMain makes the test program a worker if it was started as one.
func TestMain(m *testing.M) {
	if url := os.Getenv(workerEnv); url != "" {
		if err := worker(url, os.Getenv("REDIS_ADDR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	redistest.VerifyTestMain(m)
}

func worker(url, addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	one, err := target.New(url, []string{secret}, true)
	if err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = client.Close() }()
	d, err := New(Config{Targets: []target.Target{one}, Redis: client, AllowPrivate: true, Concurrency: 8})
	if err != nil {
		return err
	}
	fmt.Println("started")
	d.Run(ctx)
	return nil
}

// startWorker starts a worker process. It ends with the test.
func startWorker(t *testing.T, url, addr string) *testserver.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"="+url, "REDIS_ADDR="+addr)
	output := filepath.Join(t.TempDir(), "worker")
	p, err := testserver.Start(cmd, output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	await(t, "a worker", func() bool {
		said, _ := os.ReadFile(output)
		return string(said) == "started\n"
	})
	return p
}

// stream writes events of messages to a queue's stream, as the scripts of the queue do.
type stream struct {
	testing.TB
	client redis.UniversalClient
}

func newStream(t testing.TB, client redis.UniversalClient) stream {
	t.Helper()
	s := stream{t, client}
	s.client.SAdd(t.Context(), wire.QueuesKey, "default", "bulk")
	return s
}

// add writes one entry with the events of messages of these numbers.
func (s stream) add(queue string, from, to int) {
	s.Helper()
	var data []byte
	for i := from; i < to; i++ {
		data = events.Append(data, events.Sent, events.Message{ID: fmt.Sprint(i), Tries: 1}, "250 Ok", fmt.Sprintf("ann+%d@example.com", i))
	}
	script := redis.NewScript(events.Lua + `eventsAdd(KEYS[1], ARGV[1], ARGV[2]) return 1`)
	if err := script.Run(s.Context(), s.client, []string{events.Key(queue)}, data, 1<<30).Err(); err != nil {
		s.Fatal(err)
	}
}

// begun waits until the group of an endpoint is known: it gets what comes after that.
func (s stream) begun(one target.Target) {
	s.Helper()
	await(s.TB, "the group", func() bool { return s.client.HExists(s.Context(), "mailpouch:events", "group:"+groups+one.Key()).Val() })
}

// pending is how many entries of a queue a group has read and not acknowledged.
func (s stream) pending(queue string, one target.Target) int64 {
	return s.client.XPending(s.Context(), events.Key(queue), groups+one.Key()).Val().Count
}

// age makes it long ago that anybody has said of an entry that it has it.
func (s stream) age(queue string, one target.Target) {
	s.Helper()
	pending, err := s.client.XPendingExt(s.Context(), &redis.XPendingExtArgs{Stream: events.Key(queue), Group: groups + one.Key(), Start: "-", End: "+", Count: 10000}).Result()
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range pending {
		s.client.Do(s.Context(), "XCLAIM", events.Key(queue), groups+one.Key(), p.Consumer, 0, p.ID, "IDLE", time.Hour.Milliseconds(), "JUSTID")
	}
}

// Workers are killed again and again amid posts, at random: each event is posted, and its bytes are the same whoever posts it.
func TestWorkers_killed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := newStream(t, server.Client(t))
	const n, kills, perKill = 3000, 12, 200
	var posts atomic.Int64
	enough := make(chan struct{}, n)
	rec := startReceiver(t, func(w http.ResponseWriter, _ *http.Request, before int) {
		if before == 0 && posts.Add(1)%perKill == 0 {
			enough <- struct{}{}
		}
		if posts.Load()%97 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	one := to(t, rec.URL)
	var workers []*testserver.Process
	for range 3 {
		workers = append(workers, startWorker(t, rec.URL, server.Addr()))
	}
	s.begun(one)
	go func() {
		for i := 0; i < n; i += 5 { // entries of several events
			s.add([]string{"default", "bulk"}[i%2], i, i+5)
		}
	}()
	for i := range kills {
		select {
		case <-enough:
		case <-time.After(2 * time.Minute):
			t.Fatalf("%d posts", posts.Load())
		}
		workers[i%3].Kill()
		workers[i%3] = startWorker(t, rec.URL, server.Addr())
		for _, queue := range []string{"default", "bulk"} {
			s.age(queue, one)
		}
	}
	bodies := map[string]string{}
	await(t, "all events", func() bool {
		for _, p := range rec.all() {
			id := p.header.Get("Webhook-Id")
			if body, ok := bodies[id]; ok && body != string(p.body) {
				t.Fatalf("%s has other bytes: %s and %s", id, body, p.body)
			}
			bodies[id] = string(p.body)
		}
		return len(bodies) == n
	})
	await(t, "all acknowledgements", func() bool { return s.pending("default", one)+s.pending("bulk", one) == 0 })
	total := len(rec.all())
	t.Logf("%d events in %d posts, %d workers killed", n, total, kills)
	if total < n {
		t.Error("lost")
	}
	for _, w := range workers {
		if err := w.Stop(time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// Workers share the events, and what one that ends in order has in hand the others get at once.
func TestWorkers_share(t *testing.T) {
	t.Parallel()
	t.Run("one Redis", func(t *testing.T) {
		t.Parallel()
		client := redistest.Start(t, redistest.Options{}).Client(t)
		share(t, client, client)
	})
	t.Run("a cluster, with the rights of docs/operations.md", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
		client, err := tasks.Connect("redis://mailpouch:SECRET@" + cluster.Masters[0].Addr() + "?cluster=true")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		share(t, cluster.Client(t), client)
	})
}

// documentedACL is the user that docs/operations.md says is enough.
func documentedACL(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?s)\nACL SETUSER (mailpouch .*?[^\\])\n`).FindSubmatch(page)
	if line == nil {
		t.Fatal("docs/operations.md has no ACL SETUSER mailpouch")
	}
	return "user " + strings.Join(strings.Fields(strings.ReplaceAll(string(line[1]), "\\\n", " ")), " ")
}

func share(t *testing.T, admin, client redis.UniversalClient) {
	t.Helper()
	s := newStream(t, admin)
	var fails atomic.Bool
	fails.Store(true)
	rec := startReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	other := startReceiver(t, takes)
	targets := []target.Target{to(t, rec.URL), to(t, other.URL)}
	first := start(t, Config{Targets: targets, Redis: client})
	s.begun(targets[0])
	s.begun(targets[1])
	for i := range 50 {
		s.add([]string{"default", "bulk"}[i%2], i, i+1)
	}
	await(t, "failures", func() bool { return first.State()[0].Failed >= 3 })
	await(t, "the other endpoint", func() bool { return first.State()[1].Delivered == 50 })
	first.stop()
	fails.Store(false)
	second, third := start(t, Config{Targets: targets, Redis: client, Concurrency: 1}), start(t, Config{Targets: targets, Redis: client, Concurrency: 1})
	await(t, "all events", func() bool { return second.State()[0].Delivered+third.State()[0].Delivered == 50 })
	for _, queue := range []string{"default", "bulk"} {
		await(t, "all acknowledgements", func() bool { return s.pending(queue, targets[0])+s.pending(queue, targets[1]) == 0 })
	}
	second.stop()
	third.stop()
	if second.State()[1].Delivered+third.State()[1].Delivered != 0 {
		t.Error("the other endpoint gets events twice")
	}
	seen := map[string]bool{}
	for _, p := range other.all() {
		seen[p.header.Get("Webhook-Id")] = true
	}
	if len(seen) != 50 || len(other.all()) != 50 {
		t.Errorf("%d events in %d posts", len(seen), len(other.all()))
	}
}

// Redis restarts without its data, or is away: the dispatcher goes on when it is back, and says so once.
func TestDispatcher_redisAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})
	s := newStream(t, server.Client(t))
	rec := startReceiver(t, takes)
	one := to(t, rec.URL)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	defer func() { _ = client.Close() }()
	d := start(t, Config{Targets: []target.Target{one}, Redis: client})
	s.begun(one)
	s.add("default", 0, 10)
	await(t, "the first events", func() bool { return d.State()[0].Delivered == 10 })
	server.Stop()
	await(t, "the failure", func() bool { return strings.Contains(d.log.String(), "cannot be read") })
	server.Restart()
	s.add("default", 10, 20)
	await(t, "the others", func() bool { return d.State()[0].Delivered >= 20 })
	await(t, "the line in the log", func() bool { return strings.Contains(d.log.String(), "can be read again") })
	await(t, "all acknowledgements", func() bool { return s.pending("default", one) == 0 })
	if n := strings.Count(d.log.String(), "cannot be read"); n != 1 {
		t.Errorf("%s", d.log)
	}
	d.stop()
}
