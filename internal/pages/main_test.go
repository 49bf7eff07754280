package pages

import (
	"context"
	"flag"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

var screenshots = flag.Bool("screenshots", false, "write the pictures of README into docs/images")

var shots = flag.String("shots", "", "write pictures of the pages into this directory, to look at")

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // what matters comes back as an error
	redistest.VerifyTestMain(m)
}

type silence struct{}

// Printf implements go-redis' logger.
func (silence) Printf(context.Context, string, ...any) {}

// connect returns a client like that of the pages, which is closed with the test: a command takes two seconds at most.
func connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	return connectWith(t, url, redisconn.ConnectStatus)
}

// connectWorker is connect for who makes mail, and for what moves thousands: a command may take long on a slow machine.
func connectWorker(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	return connectWith(t, url, redisconn.ConnectWorker)
}

func connectWith(t testing.TB, url string, open func(string) (redis.UniversalClient, error)) redis.UniversalClient {
	t.Helper()
	client, err := open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// serve starts a server on a free port.
func serve(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Redis == nil {
		cfg.Redis = connect(t, redistest.Start(t, redistest.Options{}).URL())
	}
	if cfg.State == nil {
		cfg.State = NewState()
	}
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// answer is what a server has answered, with the body apart.
type answer struct {
	StatusCode int
	Status     string
	Header     http.Header
}

// do sends a request, over a connection of its own.
func do(t testing.TB, s *Server, method, path string, change ...func(*http.Request)) (head answer, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(s.URL(), "/")+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(r)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{reply.StatusCode, reply.Status, reply.Header}, string(data)
}

func get(t testing.TB, s *Server, path string, change ...func(*http.Request)) (head answer, body string) {
	t.Helper()
	return do(t, s, http.MethodGet, path, change...)
}

func password(p string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth("anybody", p) }
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func secret(s string) settings.Secret { return settings.NewSecret(s) }

// relay is a backend that decides by the first recipient.
type relay func(to string) error

// Open implements mailer.Backend.
func (r relay) Open(context.Context) (bool, error) { return true, nil }

// Close implements mailer.Backend.
func (r relay) Close() error { return nil }

// SendMessages implements mailer.Backend.
func (r relay) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, r, messages)
}

// SendBatch implements mailer.BatchSender.
func (r relay) SendBatch(_ context.Context, b mailer.Batch) {
	for i, m := range b.Messages {
		b.Report([]mailer.Report{{Index: i, Result: mailer.Result{Err: r(m.To[0])}}})
	}
}

func reply(class mailer.Class, step mailer.Step, code int, text string) error {
	return &mailer.SendError{Class: class, Step: step, Code: code, Text: text}
}
