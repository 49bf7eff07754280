package workercli

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// running is a "worker run" in this process.
type running struct {
	t    *testing.T
	errs *watcher
	log  *safeBuffer
	stop context.CancelFunc
	done chan int
}

func start(t *testing.T, registry backends.Registry) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, log: new(safeBuffer), stop: cancel, done: make(chan int, 1)}
	r.errs = &watcher{safeBuffer: r.log, notify: make(chan string, 1000)}
	command := func(std cli.Streams) *cobra.Command { return newCommand(std, registry) }
	go func() { r.done <- cli.Run(ctx, command, []string{"run"}, cli.Streams{Out: io.Discard, Err: r.errs}) }()
	return r
}

// says waits for a line of the log with one of these in it, and returns it.
func (r *running) says(want ...string) string {
	r.t.Helper()
	for {
		select {
		case line := <-r.errs.notify:
			for _, w := range want {
				if strings.Contains(line, w) {
					return line
				}
			}
		case <-time.After(time.Minute):
			r.t.Fatalf("nothing of %q in the log:\n%s", want, r.log.String())
		}
	}
}

var pagesURL = regexp.MustCompile(`"url":"(http://[^"]+/)"`)

// url waits for the address of its pages.
func (r *running) url() string {
	r.t.Helper()
	found := pagesURL.FindStringSubmatch(r.says(`"url":`))
	if found == nil {
		r.t.Fatalf("no address in the log:\n%s", r.log.String())
	}
	return found[1]
}

// end stops the worker and wants it to have gone well.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	if code := <-r.done; code != 0 {
		r.t.Errorf("exit code %d\n%s", code, r.log.String())
	}
}

func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(data)
}

// slow is a backend whose messages wait until they are let go.
type slow struct {
	arrived, letGo chan struct{}
}

func (slow) Open(context.Context) (bool, error) { return true, nil }
func (slow) Close() error                       { return nil }

func (s slow) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	s.arrived <- struct{}{}
	<-s.letGo
	return len(messages), nil
}

// The pages are there while a stopping worker ends what is on the wire, and say so.
func TestRun_pages(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "slow")
	t.Setenv("EMAIL_HTTP_ADDR", "127.0.0.1:0")
	backend := slow{make(chan struct{}), make(chan struct{})}
	registry := backends.Builtin()
	registry["slow"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return backend, nil }}
	queue := tasks.NewQueue(server.Client(t), tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "h.example"}})

	r := start(t, registry)
	url := r.url()
	for path, want := range map[string]string{
		"healthz": "ok", "readyz": `"ready":true`, "metrics": "mailpouch_", "monitor/": "Asynq", "": "Mailpouch", "status.json": `"critical"`,
	} {
		if code, body := fetch(t, url+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/%s: %d: no %q in %.300s", path, code, want, body)
		}
	}
	if _, err := queue.Enqueue(t.Context(), &mailer.EmailMessage{Subject: "Hello", FromEmail: "a@x.example", To: []string{"b@x.example"}}); err != nil {
		t.Fatal(err)
	}
	<-backend.arrived
	r.stop()
	r.says("worker stopping")
	if code, body := fetch(t, url+"readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"worker":"ending"`) {
		t.Errorf("/readyz while it ends: %d: %s", code, body)
	}
	if code, _ := fetch(t, url+"healthz"); code != http.StatusOK {
		t.Errorf("/healthz while it ends: %d", code)
	}
	close(backend.letGo)
	r.end()
	if code, body := fetch(t, url+"healthz"); code != 0 {
		t.Errorf("somebody answers when it has ended: %d: %s", code, body)
	}
}

// Several workers of one machine need no addresses.
func TestRun_severalWithDefaults(t *testing.T) {
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	t.Setenv("EMAIL_HTTP_ADDR", "")
	taken, err := net.Listen("tcp", "127.0.0.1:8025")
	if err == nil { // or somebody else has it
		defer func() { _ = taken.Close() }()
	}
	seen := map[string]bool{}
	for range 3 {
		r := start(t, backends.Builtin())
		defer r.end()
		line := r.says(`"url":"http://127.0.0.1:80`, "this worker has no pages") // others may run on this machine too
		r.says("worker started")
		if found := pagesURL.FindStringSubmatch(line); found != nil {
			if seen[found[1]] || strings.Contains(found[1], ":8025/") {
				t.Errorf("%s is another's", found[1])
			}
			seen[found[1]] = true
		}
	}
}

func TestRun_pagesRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	tests := []struct {
		name string
		addr string
		code int
		want string
	}{
		{"no password beyond this machine", "0.0.0.0:0", 78, "EMAIL_HTTP_ADDR: other machines can reach 0.0.0.0:0: set EMAIL_HTTP_PASSWORD or EMAIL_HTTP_TOKEN"},
		{"in use", taken.Addr().String(), 69, "EMAIL_HTTP_ADDR: " + taken.Addr().String() + " is in use"},
		{"not ours", "192.0.2.1:8025", 78, "EMAIL_HTTP_ADDR"},
		{"nonsense", "8025", 78, "EMAIL_HTTP_ADDR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("EMAIL_HTTP_ADDR", tt.addr)
			got := worker(t.Context(), t, backends.Builtin(), "run")
			if got.code != tt.code || !strings.Contains(got.err, tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", got.code, tt.code, tt.want, got.err)
			}
		})
	}
	t.Run("a check finds it too", func(t *testing.T) {
		t.Setenv("EMAIL_HTTP_ADDR", ":8025")
		got := worker(t.Context(), t, backends.Builtin(), "check")
		if got.code != 78 || !strings.HasPrefix(got.err, "worker: EMAIL_HTTP_ADDR: ") || strings.Count(got.err, "\n") != 1 {
			t.Errorf("exit code %d: %s", got.code, got.err)
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Setenv("EMAIL_HTTP_ADDR", "off")
		r := start(t, backends.Builtin())
		r.says("worker started")
		r.end()
		if strings.Contains(r.log.String(), "http://") {
			t.Errorf("there are pages:\n%s", r.log.String())
		}
	})
}
