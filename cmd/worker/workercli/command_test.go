package workercli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

type result struct {
	code     int
	out, err string
}

func worker(ctx context.Context, t *testing.T, registry backends.Registry, args ...string) result {
	t.Helper()
	var out, errs safeBuffer
	command := func(std cli.Streams) *cobra.Command { return newCommand(std, registry) }
	code := cli.Run(ctx, command, args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return result{code, out.String(), errs.String()}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// closedPort is a port that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(testserver.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestCheck(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Password: "redis-secret"})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_HOST", "127.0.0.1")
	t.Setenv("EMAIL_PORT", closedPort(t))
	t.Setenv("EMAIL_HOST_USER", "ann")
	t.Setenv("EMAIL_HOST_PASSWORD", "mail-secret")

	got := worker(t.Context(), t, backends.Builtin(), "check", "--all")
	if got.code != 69 {
		t.Errorf("exit code %d, want 69 with a mail server that is away (%s)", got.code, got.err)
	}
	for _, want := range []string{"EMAIL_HOST ", "environment", "default", "Redis redis://", ": ok\n", "\n  warning: Redis keeps nothing on disk", "Backend smtp", "connection refused"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("check did not print %q:\n%s", want, got.out)
		}
	}
	for _, secret := range []string{"redis-secret", "mail-secret"} {
		if strings.Contains(got.out+got.err, secret) {
			t.Errorf("check printed %s:\n%s%s", secret, got.out, got.err)
		}
	}

	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	if strings.Contains(got.out, "another program") {
		t.Errorf("check saw another program:\n%s", got.out)
	}
	if _, err := asynq.NewClientFromRedisClient(server.Client(t)).EnqueueContext(t.Context(), asynq.NewTask("report:make", nil)); err != nil {
		t.Fatal(err)
	}
	if got := worker(t.Context(), t, backends.Builtin(), "check"); !strings.Contains(got.out, "\n  warning: another program's tasks are in this Redis: in default (report:make)") {
		t.Errorf("check did not see another program's task:\n%s", got.out)
	}
	if got := worker(t.Context(), t, backends.Builtin(), "check"); got.code != 0 || !strings.Contains(got.out, "Backend dummy: ok") {
		t.Errorf("exit code %d with all in order\n%s%s", got.code, got.out, got.err)
	}
}

func TestBadSettings(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		args []string
		code int
		want []string
	}{
		{"every problem at once", map[string]string{"EMAIL_PORT": "smtp", "EMAIL_USE_TLS": "1", "EMAIL_USE_SSL": "1", "EMAIL_BATCH_SIZE": "0"},
			[]string{"run"}, 78, []string{"EMAIL_PORT", "EMAIL_USE_TLS", "EMAIL_BATCH_SIZE"}},
		{"a loop", map[string]string{"EMAIL_QUEUE_BACKEND": "queue"}, []string{"run"}, 78, []string{"EMAIL_QUEUE_BACKEND"}},
		{"an unknown backend", map[string]string{"EMAIL_QUEUE_BACKEND": "smpt"}, []string{"run"}, 78, []string{"smtp"}},
		{"Redis down", map[string]string{"REDIS_URL": "redis://127.0.0.1:1/0?max_retries=-1"}, []string{"check"}, 69, []string{"not ready"}},
		{"no command", nil, nil, 64, []string{"a command is expected"}},
		{"unknown command", nil, []string{"rum"}, 64, []string{`unknown command "rum"`}},
		{"a demo of nothing", nil, []string{"demo", "--count", "0"}, 64, []string{"--count"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0")
			t.Setenv("EMAIL_HOSTNAME", "app.example.com")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			got := worker(t.Context(), t, backends.Builtin(), tt.args...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d", got.code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.err, want) {
					t.Errorf("stderr has no %q:\n%s", want, got.err)
				}
			}
		})
	}
}

// The worker that a program with a backend of its own is.
func TestRun_ownBackend(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "pigeon")
	outbox := new(locmem.Outbox)
	registry := backends.Builtin()
	registry["pigeon"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: outbox}) }}

	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{})
	if _, err := queue.Enqueue(t.Context(), &mailer.EmailMessage{Subject: "Coo", To: []string{"nelson@example.com"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result)
	go func() { done <- worker(ctx, t, registry, "run") }()
	if _, err := outbox.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	got := <-done
	if got.code != 0 || !strings.Contains(got.err, `"message":"sent"`) {
		t.Errorf("exit code %d\n%s", got.code, got.err)
	}
	if n := strings.Count(got.err, "Redis keeps nothing on disk"); n != 1 {
		t.Errorf("%d warnings that a restart of Redis loses the queue, want one:\n%s", n, got.err)
	}
}

// Who tells a worker to stop while it starts has not made a mistake.
func TestRun_stoppedAtStart(t *testing.T) {
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := worker(ctx, t, backends.Builtin(), "run"); r.code != 0 {
		t.Errorf("exit status %d: %s", r.code, r.err)
	}
}

// Two relays by name, and the conversation with one of them to be read.
func TestRun_mailersTraced(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	caught := make(chan catcher.Message, 1)
	relay, err := catcher.Start(catcher.Config{OnMessage: func(m catcher.Message) { caught <- m }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = relay.Close() }()
	_, port, _ := net.SplitHostPort(relay.Addr())
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_HOST", "127.0.0.1")
	t.Setenv("EMAIL_PORT", closedPort(t))
	t.Setenv("EMAIL_MAILERS", "marketing")
	t.Setenv("EMAIL_MARKETING_HOST", "127.0.0.1")
	t.Setenv("EMAIL_MARKETING_PORT", port)

	if got := worker(t.Context(), t, backends.Builtin(), "check"); got.code != 69 ||
		!strings.Contains(got.out, "Backend marketing smtp at 127.0.0.1 port "+port+": ok") {
		t.Errorf("check: exit code %d\n%s", got.code, got.out)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()
	queue, err := tasks.NewQueue(client, tasks.QueueConfig{Mailers: []string{"marketing"}}).Using("marketing")
	if err != nil {
		t.Fatal(err)
	}
	m := &mailer.EmailMessage{Subject: "Sale", Body: "secret body", To: []string{"ann@example.com"}}
	if _, err := queue.SendMessages(t.Context(), []*mailer.EmailMessage{m}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result)
	go func() { done <- worker(ctx, t, backends.Builtin(), "run", "--trace") }()
	<-caught
	cancel()
	got := <-done
	if got.code != 0 || !strings.Contains(got.err, "C: MAIL FROM:<w***@localhost>") || strings.Contains(got.err, "secret body") {
		t.Errorf("exit code %d\n%s", got.code, got.err)
	}
}

func TestDemo(t *testing.T) {
	got := worker(t.Context(), t, backends.Builtin(), "demo", "--count", "250")
	if got.code != 0 {
		t.Fatalf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
	for _, want := range []string{"250 of 250, 0 missing, 0 twice", "connections  4 opened", "batches", "Subject: ", "your parcel has left our house"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("the demo did not print %q:\n%s", want, got.out)
		}
	}
}

// With --keep the demo prints what others queue, until it is told to stop.
func TestDemo_keep(t *testing.T) {
	var out, errs safeBuffer
	ctx, cancel := context.WithCancelCause(t.Context())
	stdout := &watcher{safeBuffer: &out, notify: make(chan string, 100)}
	command := func(std cli.Streams) *cobra.Command { return newCommand(std, backends.Builtin()) }
	done := make(chan int)
	go func() {
		done <- cli.Run(ctx, command, []string{"demo", "--count", "5", "--keep"}, cli.Streams{Out: stdout, Err: &errs})
	}()
	var url, page string
	for line := range stdout.notify {
		if _, rest, ok := strings.Cut(line, "REDIS_URL="); ok {
			url, _, _ = strings.Cut(rest, " ")
		}
		if i := strings.Index(line, "http://127.0.0.1:"); i >= 0 {
			page = strings.TrimSpace(line[i:])
		}
		if strings.Contains(line, "Ctrl-C") {
			break
		}
	}
	client, err := tasks.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	m := &mailer.EmailMessage{Subject: "Grüße von nebenan", To: []string{"you@example.com"}}
	if _, err := tasks.NewQueue(client, tasks.QueueConfig{}).Enqueue(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for line := range stdout.notify {
		if strings.Contains(line, "Grüße von nebenan") {
			break
		}
	}
	if code, body := fetch(t, page+"status.json"); code != http.StatusOK || !strings.Contains(body, `"state":"ok"`) {
		t.Errorf("the pages at %q: %d: %s", page, code, body)
	}
	cancel(errors.New("Ctrl-C"))
	if code := <-done; code != 0 {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
}

// watcher tells a test what is written.
type watcher struct {
	*safeBuffer
	notify chan string
}

func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.safeBuffer.Write(p)
	w.notify <- string(p)
	return n, err
}

// What a server answers neither steers the terminal nor turns the writing direction.
func TestStrangers(t *testing.T) {
	const dirt = "\x1b[2J\u009b1m\u202egnp.exe\u2066\ufeff"
	clean := func(what, said string) {
		t.Helper()
		if strings.ContainsAny(said, "\x1b\u009b\u202e\u2066\ufeff") || !strings.Contains(said, "gnp.exe") {
			t.Errorf("%s: %q", what, said)
		}
	}
	teapot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, dirt, http.StatusTeapot) }))
	defer teapot.Close()
	clean("health", worker(t.Context(), t, backends.Builtin(), "health", "--url", teapot.URL).err)

	redis := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", redis.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	registry := backends.Registry{"smtp": {New: func(settings.Settings) (mailer.Backend, error) { return nil, errors.New("550 " + dirt) }}}
	clean("check", worker(t.Context(), t, registry, "check").out)

	var b strings.Builder
	log := newLogger(&b, settings.Log{Format: "console", Level: "info"})
	log.Error().Err(errors.New(dirt)).Strs("to", []string{dirt}).Msg(dirt)
	clean("the log for people", b.String())
}

// relay is a mail server that greets everybody, and answers each command as replies say, else
// with 250. It returns its port and what it was told.
func relay(t *testing.T, replies map[string]string) (port string, told func() []string) {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	addr := testserver.Serve(t, func(conn net.Conn) {
		fmt.Fprint(conn, "220 relay.example ESMTP\r\n")
		for in := bufio.NewScanner(conn); in.Scan(); {
			mu.Lock()
			lines = append(lines, in.Text())
			mu.Unlock()
			verb, _, _ := strings.Cut(in.Text(), " ")
			reply := cmp.Or(replies[in.Text()], replies[verb], "250 ok")
			fmt.Fprint(conn, reply+"\r\n")
		}
	})
	_, port, _ = net.SplitHostPort(addr)
	return port, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(lines)
	}
}

// A relay may take connections and logins, and say no earlier than at MAIL that it takes no mail.
func TestCheck_senders(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	const login = "set EMAIL_HOST_USER and EMAIL_HOST_PASSWORD"
	for _, tt := range []struct {
		name    string
		env     map[string]string
		replies map[string]string
		code    int
		want    string
	}{
		{"taken", map[string]string{"DEFAULT_FROM_EMAIL": "shop@x.example", "SERVER_EMAIL": "root@x.example"}, nil, 0, ": ok"},
		{"wants a login, nothing set", nil, map[string]string{"MAIL": "530 5.7.0 Authentication required"}, 69, login + ", or EMAIL_USE_TLS: 530 5.7.0 Authentication required"},
		{"wants a login", map[string]string{"DEFAULT_FROM_EMAIL": "shop@x.example"}, map[string]string{"MAIL": "530 5.7.0 Authentication required"}, 69, login},
		{"a login that may not send", map[string]string{"EMAIL_HOST_USER": "ann", "EMAIL_HOST_PASSWORD": "secret"},
			map[string]string{"EHLO": "250-relay.example\r\n250 AUTH PLAIN", "AUTH": "235 welcome", "MAIL": "530 5.7.57 not allowed"}, 69, "see whether ann may send: 530 5.7.57"},
		{"not this sender", map[string]string{"DEFAULT_FROM_EMAIL": "shop@x.example"}, map[string]string{"MAIL": "553 5.7.1 not yours"}, 69, "address in DEFAULT_FROM_EMAIL: 553 5.7.1 not yours"},
		{"not for now", map[string]string{"DEFAULT_FROM_EMAIL": "shop@x.example"}, map[string]string{"MAIL": "451 4.3.0 later"}, 69, "address in DEFAULT_FROM_EMAIL: 451 4.3.0 later"},
		{"not that sender", map[string]string{"DEFAULT_FROM_EMAIL": "shop@x.example", "SERVER_EMAIL": "root@x.example"},
			map[string]string{"MAIL FROM:<root@x.example>": "550 5.1.8 who?"}, 69, "address in SERVER_EMAIL: 550 5.1.8 who?"},
		{"not Django's default", nil, map[string]string{"MAIL": "550 5.1.8 who?"}, 0, "warning: DEFAULT_FROM_EMAIL is not set, and the server takes no mail from webmaster@localhost: 550 5.1.8 who?"},
		{"closes", nil, map[string]string{"MAIL": "421 4.3.2 closing"}, 69, "421 4.3.2 closing"},
		{"another mailer", map[string]string{"EMAIL_MAILERS": "alerts", "EMAIL_ALERTS_HOST": "127.0.0.1", "EMAIL_ALERTS_PORT": "$PORT", "EMAIL_QUEUE_BACKEND": "smtp"},
			map[string]string{"MAIL": "530 5.7.0 login"}, 69, "set EMAIL_ALERTS_HOST_USER and EMAIL_ALERTS_HOST_PASSWORD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port, told := relay(t, tt.replies)
			t.Setenv("REDIS_URL", server.URL())
			t.Setenv("EMAIL_HOSTNAME", "app.example.com")
			t.Setenv("EMAIL_HOST", "127.0.0.1")
			t.Setenv("EMAIL_PORT", port)
			for name, value := range tt.env {
				t.Setenv(name, strings.ReplaceAll(value, "$PORT", port))
			}
			got := worker(t.Context(), t, backends.Builtin(), "check")
			if got.code != tt.code || !strings.Contains(got.out, tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", got.code, tt.code, tt.want, got.out, got.err)
			}
			if tt.code == 0 && !slices.Contains(told(), "RSET") {
				t.Errorf("the transaction stays open: %q", told())
			}
			for _, line := range told() {
				if strings.HasPrefix(line, "RCPT") || strings.HasPrefix(line, "DATA") {
					t.Errorf("it says %s", line)
				}
			}
		})
	}
}
