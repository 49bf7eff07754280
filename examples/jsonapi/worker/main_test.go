package main

import (
	"bytes"
	"context"
	"io"
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
	"github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what several goroutines write.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// A wrong token and an API that wants less hold the mailer: the message waits as it is, though it has no second try. It is
// sent when the API takes it, and not before the time that it has named.
func TestWorker_held(t *testing.T) {
	const pause = 3 * time.Second // without a word of the API it would be one
	for _, tt := range []struct {
		name       string
		get, post  int // what the API says at first
		retryAfter string
		said       string
		atLeast    time.Duration
	}{
		{"wrong token at Open", 401, 401, "", "401 no (AUTH)", 0},
		{"wrong token at the first message", 200, 401, "", "401 no (AUTH)", 0},
		{"too many requests", 200, 429, "3", "429 no (connect)", pause},
		{"too many requests at Open", 429, 429, "3", "429 no (connect)", pause},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var refused, taken time.Time
			delivered := make(chan struct{}, 10)
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				mu.Lock()
				defer mu.Unlock()
				code := map[string]int{http.MethodGet: tt.get, http.MethodPost: tt.post}[r.Method]
				switch {
				case refused.IsZero() && code != http.StatusOK:
					refused = time.Now()
					w.Header().Set("Retry-After", tt.retryAfter)
					w.WriteHeader(code)
					_, _ = io.WriteString(w, `{"message": "no"}`)
				case r.Method == http.MethodPost:
					taken = time.Now()
					_, _ = io.WriteString(w, `{"id": "17"}`)
					delivered <- struct{}{}
				}
			}))
			t.Cleanup(api.Close)
			server := redis.Start(t, redis.Options{})
			for _, d := range settings.Describe(settings.Default()) {
				t.Setenv(d.Name, "")
				_ = os.Unsetenv(d.Name)
			}
			t.Setenv("REDIS_URL", server.URL())
			t.Setenv("EMAIL_HTTP_ADDR", "off")
			t.Setenv("EMAIL_HOSTNAME", "worker.example.com")
			t.Setenv("EMAIL_MAX_RETRY", "0")
			t.Setenv("EMAIL_URL", "jsonapi+http://SECRET@"+strings.TrimPrefix(api.URL, "http://"))
			app, err := mailpouch.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = app.Close() }()
			if n, err := app.Mailer.SendMail(t.Context(), "Hello", "It works.", "", []string{"ann@example.org"}, nil); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var out output
			ended := make(chan int, 1)
			go func() { ended <- workercli.Run(ctx, registry(), []string{"run"}, &out, &out) }()
			select {
			case <-delivered:
			case code := <-ended:
				t.Fatalf("the worker ended with %d\n%s", code, out.String())
			case <-time.After(time.Minute):
				t.Errorf("nothing came\n%s", out.String())
			}
			stop()
			if code := <-ended; code != 0 {
				t.Errorf("the worker ended with %d", code)
			}
			log := out.String()
			if strings.Contains(log, "SECRET") || !strings.Contains(log, "relay takes no mail") || !strings.Contains(log, tt.said) || !strings.Contains(log, `"try":1`) {
				t.Errorf("the log is\n%s", log)
			}
			if waited := taken.Sub(refused); waited < tt.atLeast {
				t.Errorf("asked again after %v, want %v", waited, tt.atLeast)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}
