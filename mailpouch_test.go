package mailpouch_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// environment sets these variables, a Redis, and no other setting.
func environment(t *testing.T, vars map[string]string) *embedded.Redis {
	t.Helper()
	server, err := embedded.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	for _, d := range settings.Describe(settings.Default()) {
		t.Setenv(d.Name, "")
		_ = os.Unsetenv(d.Name) // restored by Setenv's cleanup
	}
	t.Setenv("EMAIL_HOSTNAME", "www.example.com")
	t.Setenv("REDIS_URL", server.URL())
	for name, value := range vars {
		t.Setenv(name, value)
	}
	return server
}

func open(t *testing.T) *mailpouch.App {
	t.Helper()
	app, err := mailpouch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	return app
}

func waiting(t *testing.T, app *mailpouch.App, queue string) int {
	t.Helper()
	return int(app.Redis.LLen(t.Context(), "asynq:{"+queue+"}:pending").Val())
}

func TestOpen(t *testing.T) {
	environment(t, map[string]string{"EMAIL_QUEUE": "critical", "ADMINS": "ann@example.com", "EMAIL_MAILERS": "marketing"})
	app := open(t)
	send := func(n int, err error) {
		t.Helper()
		if n != 1 || err != nil {
			t.Fatalf("%d sent, %v", n, err)
		}
	}
	send(app.Mailer.SendMail(t.Context(), "Hello", "It works.", "", []string{"bob@example.org"}, nil))
	send(app.Mailer.MailAdmins(t.Context(), "Down", "All of it.", nil))
	send(app.Mailer.With(mailer.Options{Using: "marketing"}).SendMail(t.Context(), "Hello", "It works.", "", []string{"bob@example.org"}, nil))
	id, err := app.Queue.Enqueue(t.Context(), &mailer.EmailMessage{Subject: "Hi", To: []string{"bob@example.org"}})
	if err != nil || id == "" {
		t.Errorf("Enqueue: %q, %v", id, err)
	}
	if n := waiting(t, app, "critical"); n != 3 {
		t.Errorf("%d tasks wait in critical, want 3", n)
	}
	if _, err := app.Queue.Using("nobody"); err == nil {
		t.Error("the queue knows any mailer")
	}
}

// Options go with any message, to the queue and to named mailers; what they leave open is as the settings have it.
func TestApp_With(t *testing.T) {
	environment(t, map[string]string{"EMAIL_QUEUE": "normal", "EMAIL_MAX_RETRY": "7", "EMAIL_MAILERS": "marketing"})
	app := open(t)
	inspector := asynq.NewInspectorFromRedisClient(app.Redis)
	html := &mailer.EmailMessage{Subject: "Hello", Body: "It works.", To: []string{"bob@example.org"}}
	html.AttachAlternative("<p>It works.</p>", "text/html")
	html.Attach("a.txt", []byte("a"), "text/plain")

	later := app.Mailer.With(mailer.Options{Using: "marketing", ProcessIn: time.Hour, IdempotencyKey: "order-17", Tags: []string{"order"}})
	id, err := later.Enqueue(t.Context(), html)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := later.Enqueue(t.Context(), html); again != id || err != nil {
		t.Errorf("handed over again: %q, %v, want %q", again, err, id)
	}
	task, err := inspector.GetTaskInfo("marketing.normal", id)
	if err != nil {
		t.Fatal(err)
	}
	if task.State != asynq.TaskStateScheduled || task.MaxRetry < 7 || task.MaxRetry > 8 || !strings.Contains(string(task.Payload), `"tags":["order"]`) ||
		!strings.Contains(string(task.Payload), `"filename":"a.txt"`) {
		t.Errorf("%v, %d retries: %s", task.State, task.MaxRetry, task.Payload)
	}
	if err := app.Queue.With(mailer.Options{Using: "marketing"}).Cancel(t.Context(), id); err != nil {
		t.Error(err)
	}
	results, err := app.Mailer.With(mailer.Options{Queue: "bulk"}).SendResults(t.Context(), html, html)
	if err != nil || len(results) != 2 || results[0].TaskID == results[1].TaskID {
		t.Fatalf("%+v, %v", results, err)
	}
	for _, r := range results {
		if err := app.Queue.With(mailer.Options{Queue: "bulk"}).Cancel(t.Context(), r.TaskID); err != nil {
			t.Errorf("%s: %v", r.TaskID, err)
		}
	}
	if _, err := app.Mailer.With(mailer.Options{Using: "nobody"}).Send(t.Context(), html); err == nil {
		t.Error("a mailer that is not configured was taken")
	}
}

// In development, where mail is not queued, options are checked as in production.
func TestApp_With_console(t *testing.T) {
	environment(t, map[string]string{"EMAIL_BACKEND": "dummy", "EMAIL_MAILERS": "marketing", "EMAIL_MARKETING_BACKEND": "dummy"})
	app := open(t)
	message := &mailer.EmailMessage{To: []string{"bob@example.org"}}
	for _, o := range []mailer.Options{{}, {Using: "marketing"}, {Using: "default", Queue: "bulk", ProcessIn: time.Hour, Unique: time.Hour}} {
		if id, err := app.Mailer.With(o).Enqueue(t.Context(), message); id != "" || err != nil {
			t.Errorf("%+v: %q, %v", o, id, err)
		}
	}
	for _, o := range []mailer.Options{{Using: "nobody"}, {Queue: "a b"}, {ProcessIn: -1}, {Mailing: "a.b"}, {Tags: []string{""}}} {
		if _, err := app.Mailer.With(o).Send(t.Context(), message); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// Where mail goes is the queue, unless EMAIL_BACKEND says otherwise. EMAIL_URL is the workers'.
func TestOpen_backend(t *testing.T) {
	for _, tt := range []struct {
		name   string
		vars   map[string]string
		queued int
	}{
		{"nothing", nil, 1},
		{"queue", map[string]string{"EMAIL_BACKEND": "queue"}, 1},
		{"dummy", map[string]string{"EMAIL_BACKEND": "dummy"}, 0},
		{"the workers' server", map[string]string{"EMAIL_URL": "smtps://u:pw@192.0.2.1"}, 1},
		{"a mailer that only workers know", map[string]string{"EMAIL_MAILERS": "marketing"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, tt.vars)
			app := open(t)
			if n, err := app.Mailer.SendMail(t.Context(), "Hello", "It works.", "", []string{"bob@example.org"}, nil); n != 1 || err != nil {
				t.Fatalf("%d sent, %v", n, err)
			}
			if n := waiting(t, app, "default"); n != tt.queued {
				t.Errorf("%d queued, want %d", n, tt.queued)
			}
		})
	}
}

func TestOpen_problems(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"of Load and of the registry", map[string]string{"EMAIL_MAX_RETRY": "many", "EMAIL_QUEUE_SHARDS": "-1", "DEFAULT_CHARSET": "utf-9"}, []string{"EMAIL_MAX_RETRY", "EMAIL_QUEUE_SHARDS", "DEFAULT_CHARSET"}},
		{"of the registry", map[string]string{"EMAIL_BACKEND": "consle", "DEFAULT_CHARSET": "utf-9"}, []string{"DEFAULT_CHARSET", "did you mean console"}},
		{"of Redis and the registry", map[string]string{"REDIS_URL": "rediss://u:SECRET@r:6379?cafile=/no/such.pem", "DEFAULT_CHARSET": "utf-9"}, []string{"DEFAULT_CHARSET", "REDIS_URL"}},
		{"Redis is away", map[string]string{"REDIS_URL": "redis://u:SECRET@127.0.0.1:1/0"}, []string{"mailpouch: Redis redis://u:[redacted]@127.0.0.1:1/0", "connection refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, tt.vars)
			app, err := mailpouch.Open(t.Context())
			if err == nil || app != nil || strings.Contains(err.Error(), "SECRET") {
				t.Fatalf("got %v", err)
			}
			for _, want := range tt.want {
				if strings.Count(err.Error(), want) != 1 {
					t.Errorf("got %v, want %s once", err, want)
				}
			}
		})
	}
}

// A problem is named once, whoever finds it.
func TestOpen_problemOnce(t *testing.T) {
	environment(t, map[string]string{"SERVER_EMAIL": "a@b@c", "EMAIL_PORT": "0"})
	_, err := mailpouch.Open(t.Context())
	var problems settings.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestOpen_warnings(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	environment(t, map[string]string{"EMAIL_QUEU": "bulk"})
	open(t)
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "did you mean EMAIL_QUEUE?") {
		t.Errorf("logged %s", got)
	}
}

// A program that brings its own backends and options.
func TestNew(t *testing.T) {
	server := environment(t, nil)
	s := settings.Default()
	s.Delivery.Backend, s.Queue.Name, s.Message.Hostname = "queue", "bulk", "www.example.com"
	url, err := settings.NewURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	s.Queue.RedisURL = url
	registry := backends.Builtin()
	outbox := new(locmem.Outbox)
	registry["own"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: outbox}) }}
	cfg := mailpouch.Config{Registry: registry, Options: tasks.Options{AtMostOnce: true}}
	for _, backend := range []string{"queue", "own"} {
		s.Delivery.Backend = backend
		app, err := mailpouch.New(t.Context(), s, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := app.Mailer.SendMail(t.Context(), "Hello", "It works.", "", []string{"bob@example.org"}, nil); n != 1 || err != nil {
			t.Errorf("%s: %d sent, %v", backend, n, err)
		}
		if n := waiting(t, app, "bulk"); n != 1 {
			t.Errorf("%s: %d in the queue, want 1", backend, n)
		}
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, ok := registry["queue"]; ok || len(outbox.Messages()) != 1 {
		t.Errorf("the registry was changed, or %d in the outbox", len(outbox.Messages()))
	}
}
