package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// jsonLines are n messages, each to a recipient of its own.
func jsonLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"to": ["user%d@example.com"], "subject": "Letter %d", "body": "Hello."}`+"\n", i+1, i+1)
	}
	return b.String()
}

func TestKeys(t *testing.T) {
	key := func(k *keys, line string) string { return k.of([]byte(line)) }
	first := newKeys("july")
	a, b, a2 := key(first, "a\n"), key(first, "b\n"), key(first, "a\r\n")
	if a == b || a == a2 || b == a2 || !strings.HasPrefix(a, "july:") {
		t.Errorf("%q, %q, %q", a, b, a2)
	}
	again := newKeys("july") // in another order, one line mended
	if b2, c, a3, a4 := key(again, "b"), key(again, "c"), key(again, "a"), key(again, "a"); b2 != b || a3 != a || a4 != a2 || c == a {
		t.Errorf("%q, %q, %q, %q", b2, c, a3, a4)
	}
	if other := key(newKeys("august"), "a"); other == a || key(newKeys(""), "a") != "" {
		t.Errorf("another run has the key %q", other)
	}
}

// Chunks that are ready early wait for those before them.
func TestEachChunk_order(t *testing.T) {
	second := make(chan struct{})
	work := func(_ context.Context, c *chunk) []error {
		lines := c.lines
		if lines[0].n == 1 {
			<-second
		}
		if lines[0].n == 3 {
			close(second)
		}
		return make([]error, len(lines))
	}
	var got []int
	err := eachChunk(t.Context(), newChunker(strings.NewReader("a\nb\nc\nd\n\ne"), 2, nil).next, 2, work, func(c chunk) error {
		for _, l := range c.lines {
			got = append(got, l.n)
		}
		return nil
	})
	if want := "[1 2 3 4 6]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("lines %v, want %s (%v)", got, want, err)
	}
}

// A line from a slow pipe does not wait for the next one.
func TestEachChunk_slowPipe(t *testing.T) {
	r, w := io.Pipe()
	steps := make(chan int)
	go func() {
		defer w.Close() //nolint:errcheck // a pipe's never fails
		for i := range 3 {
			fmt.Fprintln(w, "line")
			if n := <-steps; n != i+1 {
				t.Errorf("line %d is done, want %d", n, i+1)
			}
		}
	}()
	work := func(_ context.Context, c *chunk) []error { return make([]error, len(c.lines)) }
	err := eachChunk(t.Context(), newChunker(r, 1000, nil).next, 4, work, func(c chunk) error {
		for _, l := range c.lines {
			steps <- l.n
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestEachChunk_ends(t *testing.T) {
	cause := errors.New("cause")
	work := func(_ context.Context, c *chunk) []error { return make([]error, len(c.lines)) }
	lines := 0
	count := func(c chunk) error { lines += len(c.lines); return nil }
	input := io.MultiReader(strings.NewReader("a\nb\n"), failing{cause})
	if err := eachChunk(t.Context(), newChunker(input, 10, nil).next, 2, work, count); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "line 3: ") || lines != 2 {
		t.Errorf("input that fails: %v after %d lines", err, lines)
	}
	endless := func(chunk) error { return cause }
	if err := eachChunk(t.Context(), newChunker(strings.NewReader(strings.Repeat("x\n", 1000)), 1, nil).next, 2, work, endless); !errors.Is(err, cause) {
		t.Errorf("done that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eachChunk(ctx, newChunker(strings.NewReader("x\n"), 1, nil).next, 2, work, count); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// However many goroutines there are, bad lines are named in their order.
func TestBulk_badLinesInOrder(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	var in, want strings.Builder
	for i := range 3000 {
		switch i % 100 {
		case 7:
			in.WriteString(`{"to": ["x\ny"]}` + "\n")
			fmt.Fprintf(&want, "%d ", i+1)
		case 8:
			in.WriteString(`{"to": ["a@example.com"], "options": {"using": "nobody"}}` + "\n")
			fmt.Fprintf(&want, "%d ", i+1)
		default:
			in.WriteString(`{"to": ["a@example.com"]}` + "\n")
		}
	}
	numbers := func(stderr string) string {
		var b strings.Builder
		for _, m := range regexp.MustCompile(`(?m)^enqueue: line (\d+):`).FindAllStringSubmatch(stderr, -1) {
			b.WriteString(m[1] + " ")
		}
		return b.String()
	}
	t.Setenv("EMAIL_MAILERS", "alerts")
	t.Setenv("EMAIL_ALERTS_HOST", "localhost")
	got := enqueue(t, "", "bulk", file(t, "lines", in.String()))
	if got.code != 65 || numbers(got.err) != want.String() || !strings.Contains(got.err, "60 of 3000 lines are wrong: nothing was queued") || pending(t, server, "default") != 0 {
		t.Errorf("a file: %+v", got)
	}
	got = enqueue(t, in.String(), "bulk", "-", "--concurrency", "8")
	if got.code != 65 || numbers(got.err) != want.String() || !strings.Contains(got.err, "2940 queued, 60 lines left out") || pending(t, server, "default") != 2940 {
		t.Errorf("a pipe: %+v", got)
	}
}

// Lines with options of their own go where they say, with the others' as defaults.
func TestBulk_lineOptions(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	in := `{"to": ["a@example.com"], "options": {"queue": "critical", "max_retry": 3, "tags": ["a", "b, c"], "mailing": "autumn"}}
{"to": ["b@example.com"], "options": {"queue": "critical"}}
{"to": ["c@example.com"]}
{"to": ["d@example.com"], "options": {}}
{"to": ["e@example.com"], "options": null}
{"to": ["f@example.com"], "options": {"process_at": "2100-01-01T00:00:00Z"}}
`
	got := enqueue(t, in, "bulk", "-", "--queue", "bulk", "--max-retry", "1", "--mailing", "spring", "--tag", "x", "--tag", "y")
	if got.code != 0 || !strings.HasPrefix(got.out, "6 queued\nmailing ") || pending(t, server, "critical") != 2 || pending(t, server, "bulk") != 4 {
		t.Errorf("%+v, %d critical, %d bulk", got, pending(t, server, "critical"), pending(t, server, "bulk"))
	}
	inspector := asynq.NewInspectorFromRedisClient(server.Client(t))
	later, err := inspector.ListScheduledTasks("bulk")
	if err != nil || len(later) != 1 || !strings.Contains(string(later[0].Payload), `"date":"2100-01-01T00:00:00Z"`) {
		t.Errorf("scheduled: %+v, %v", later, err)
	}
	retries := map[int]bool{}
	waiting, err := inspector.ListPendingTasks("critical")
	named := []string{`"tags":["a","b, c"],"mailing":"autumn"`, `"tags":["x","y"],"mailing":"spring"`}
	for _, task := range waiting {
		retries[task.MaxRetry] = true
		named = slices.DeleteFunc(named, func(part string) bool { return strings.Contains(string(task.Payload), part) })
	}
	if len(named) > 0 {
		t.Errorf("in no payload: %s", named)
	}
	if err != nil || !retries[3+1] || !retries[1+1] { // one to spare
		t.Errorf("max_retry: %v, %v", retries, err)
	}
}

func TestBulk_badFlags(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0")
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, tt := range []struct{ args, want string }{
		{"--concurrency 0", "--concurrency 0"},
		{"--concurrency 1001", "--concurrency 1001"},
		{"--resume x --unique 1h", "exclude each other"},
		{"--resume " + strings.Repeat("x", 250), "idempotency_key"},
		{"--using nobody", "nobody"},
	} {
		t.Setenv("EMAIL_MAILERS", "alerts")
		t.Setenv("EMAIL_ALERTS_HOST", "localhost")
		got := enqueue(t, jsonLines(1), append([]string{"bulk", "-"}, strings.Fields(tt.args)...)...)
		if got.code != 64 || !strings.Contains(got.err, tt.want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
}

// relay stands between a command and Redis. When it has passed on so many bytes it
// calls trip once.
type relay struct {
	net.Listener
	left atomic.Int64
	trip func()
	once sync.Once
	open sync.WaitGroup
}

func newRelay(t *testing.T, to string, bytes int64, trip func(*relay)) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l}
	r.trip = func() { trip(r) }
	r.left.Store(bytes)
	r.open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			r.open.Go(func() { r.pass(in, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.open.Wait()
	})
	return r
}

// Write counts what goes to Redis.
func (r *relay) Write(p []byte) (int, error) {
	if r.left.Add(-int64(len(p))) < 0 {
		r.once.Do(r.trip)
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func (r *relay) pass(in net.Conn, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		_ = in.Close()
		return
	}
	r.open.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})
	_, _ = io.Copy(io.MultiWriter(r, out), in)
	_ = out.Close()
	_ = in.Close()
}

func (r *relay) url() string { return "redis://" + r.Addr().String() + "/0" }

// wantEachOnce looks for the messages of jsonLines in a queue.
func wantEachOnce(t *testing.T, s *redistest.Server, n int) {
	t.Helper()
	tasks, err := asynq.NewInspectorFromRedisClient(s.Client(t)).ListPendingTasks("default", asynq.PageSize(10*n))
	if err != nil {
		t.Fatal(err)
	}
	copies := map[string]int{}
	for _, task := range tasks {
		copies[regexp.MustCompile(`user\d+@`).FindString(string(task.Payload))]++
	}
	if len(tasks) != n || len(copies) != n {
		t.Errorf("%d tasks for %d recipients, want %d of each", len(tasks), len(copies), n)
	}
}

// A run that is killed can be repeated, and each mail is queued once.
func TestBulk_resumeAfterKill(t *testing.T) {
	const n = 2000
	server := redistest.Start(t, redistest.Options{})
	path := file(t, "lines", jsonLines(n))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "bulk", path, "--resume", "july")
	started := make(chan struct{})
	between := newRelay(t, server.Addr(), 500_000, func(*relay) {
		<-started
		if err := child.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	child.Env = append(os.Environ(), asCommand+"=1", "REDIS_URL="+between.url(), "EMAIL_HOSTNAME=app.example.com")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the first run ended with %v", err)
	}
	before := pending(t, server, "default")
	if before == 0 || before == n {
		t.Fatalf("%d queued when it was killed: that is not in the middle", before)
	}
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, run := range []string{"second", "third"} {
		if got := enqueue(t, "", "bulk", path, "--resume", "july"); got.code != 0 || !strings.HasPrefix(got.out, "2000 queued\nmailing ") || got.err != "" {
			t.Errorf("%s run: %+v", run, got)
		}
		wantEachOnce(t, server, n)
	}
	if got := enqueue(t, "", "bulk", path, "--resume", "august"); got.code != 0 || pending(t, server, "default") != 2*n {
		t.Errorf("another run: %+v", got)
	}
}

// Whoever shares a budget never has more than there is, and one who wants more has it alone.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.acquire(4)
		b.acquire(6)
		var took atomic.Int64
		go func() {
			b.acquire(3)
			took.Store(3)
			b.release(3)
			b.acquire(25)
			took.Store(25)
		}()
		synctest.Wait()
		if took.Load() != 0 {
			t.Error("taken though nothing is left")
		}
		b.release(4)
		synctest.Wait()
		if took.Load() != 3 {
			t.Errorf("%d taken with 4 left", took.Load())
		}
		b.release(6)
		synctest.Wait()
		if took.Load() != 25 || b.left != -15 {
			t.Errorf("%d taken, %d left", took.Load(), b.left)
		}
	})
}

// A run that is interrupted says so, and how to go on.
func TestBulk_interrupted(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	between := newRelay(t, server.Addr(), 300_000, func(*relay) { cancel() })
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("REDIS_URL", between.url())
	var out, errs bytes.Buffer
	code := cli.Run(ctx, newCommand, []string{"bulk", "-", "--resume", "july"}, cli.Streams{In: strings.NewReader(jsonLines(3000)), Out: &out, Err: &errs})
	if code != 75 || !strings.HasPrefix(errs.String(), "enqueue: interrupted (") || !strings.HasSuffix(errs.String(), "repeat it with the same --resume)\n") {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
	if n := pending(t, server, "default"); n == 0 || n == 3000 {
		t.Errorf("%d queued: that is not in the middle", n)
	}
}

// The lines of a file that are named are lines that it has.
func TestBulk_fileNoRedis(t *testing.T) {
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("REDIS_URL", "redis://"+testserver.FreeAddr(t))
	for n, want := range map[int]string{
		64:   `\(0 queued; not queued: lines 1-64; a run with --resume`,
		3000: `\(0 queued; not queued: lines 1-[12]001 and all after; a run with --resume`, // some chunks were tried
	} {
		got := enqueue(t, "", "bulk", file(t, "mails.jsonl", jsonLines(n)), "--concurrency", "1")
		if got.code != 69 || !regexp.MustCompile(want).MatchString(got.err) {
			t.Errorf("%d lines: %+v, want %s", n, got, want)
		}
	}
}

// When Redis goes away in the middle the command says which lines are not queued.
func TestBulk_redisGoes(t *testing.T) {
	const n = 20_000
	server := redistest.Start(t, redistest.Options{})
	between := newRelay(t, server.Addr(), 400_000, func(r *relay) { _ = r.Close() })
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("REDIS_URL", between.url())
	got := enqueue(t, jsonLines(n), "bulk", "-", "--concurrency", "4")
	m := regexp.MustCompile(`\((\d+) queued;(?: perhaps queued: lines ([\d, -]+);)? not queued: lines ([\d, -]+) and all after; a run with --resume`).FindStringSubmatch(got.err)
	if got.code != 69 && got.code != 75 || m == nil || strings.Count(got.err, "\n") != 1 {
		t.Fatalf("%+v", got)
	}
	known, last := 0, 0 // lines that are in one of the lists
	for _, span := range strings.Split(strings.TrimPrefix(m[2]+", "+m[3], ", "), ", ") {
		from, to := 0, 0
		if _, err := fmt.Sscanf(span, "%d-%d", &from, &to); err != nil {
			to = from
		}
		known += to - from + 1
		last = max(last, to)
	}
	queued := last - known
	if fmt.Sprint(queued) != m[1] || queued == 0 || queued >= n {
		t.Errorf("%s queued, and all but %d lines", m[1], queued)
	}
	// A reply that was lost may have been to a task that was taken.
	if in := pending(t, server, "default"); in < queued || in >= n {
		t.Errorf("%d in Redis, want %d", in, queued)
	}
}
