package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// environment sets these variables and no others, with a Redis.
func environment(t *testing.T, vars map[string]string) {
	t.Helper()
	server, err := embedded.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	for _, d := range settings.Describe(settings.Default()) {
		t.Setenv(d.Name, "")
		_ = os.Unsetenv(d.Name)
	}
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HTTP_ADDR", "off")
	t.Setenv("EMAIL_HOSTNAME", "worker.example.com")
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

// worker runs a command line until ctx ends.
func worker(ctx context.Context, args ...string) (code int, text string) {
	var out output
	code = workercli.Run(ctx, registry(), args, &out, &out)
	return code, out.text.String()
}

// output is what several goroutines write.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// The default mailer and one with a name are each a webhook of their own. Programs hand their
// mail over with the same environment, without knowing the backend. No secret shows anywhere.
func TestWorker(t *testing.T) {
	got := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			got <- r.Header.Get("Authorization") + " " + r.URL.String()
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(service.Close)
	host := strings.TrimPrefix(service.URL, "http://")
	environment(t, map[string]string{
		"EMAIL_URL":           "webhook+http://SECRET1@" + host + "/SECRET-default?k=SECRET",
		"EMAIL_MAILERS":       "marketing",
		"EMAIL_MARKETING_URL": "webhook+http://SECRET2@" + host + "/SECRET-marketing",
	})
	if code, out := worker(t.Context(), "check"); code != 0 || strings.Contains(out, "SECRET") || !strings.Contains(out, "Backend marketing webhook: ok") {
		t.Errorf("check: %d\n%s", code, out)
	}
	app, err := mailpouch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	for _, using := range []string{"", "marketing"} {
		mail := app.Mailer.With(mailer.Options{Using: using})
		if n, err := mail.SendMail(t.Context(), "Hello", "It works.", "", []string{"ann@example.org"}, nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	type end struct {
		code   int
		output string
	}
	ended := make(chan end, 1)
	go func() {
		code, out := worker(ctx, "run")
		ended <- end{code, out}
	}()
	seen := map[string]bool{}
	for range 2 {
		select {
		case request := <-got:
			seen[request] = true
		case e := <-ended:
			t.Fatalf("the worker ended with %d\n%s", e.code, e.output)
		case <-time.After(30 * time.Second):
			t.Error("nothing came")
		}
	}
	stop()
	if e := <-ended; e.code != 0 || strings.Contains(e.output, "SECRET") || !strings.Contains(e.output, "sent") {
		t.Errorf("run: %d\n%s", e.code, e.output)
	}
	if !seen["Bearer SECRET1 /SECRET-default?k=SECRET"] || !seen["Bearer SECRET2 /SECRET-marketing"] {
		t.Errorf("requests: %v", seen)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestWorker_problems(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		code int
		want []string
	}{
		{"unknown scheme", map[string]string{"EMAIL_URL": "webhok+https://SECRET@mx", "EMAIL_PORT": "x"}, 78, []string{"smtps:", "webhook+http: or webhook+https:", "EMAIL_PORT"}},
		{"no URL", map[string]string{"EMAIL_QUEUE_BACKEND": "webhook"}, 69, []string{"an EMAIL_URL such as webhook+https://TOKEN@"}},
		{"no host", map[string]string{"EMAIL_URL": "webhook+https:SECRET"}, 69, []string{"webhook"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, tt.vars)
			code, out := worker(t.Context(), "check")
			if code != tt.code || strings.Contains(out, "SECRET") {
				t.Errorf("%d\n%s", code, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}
