package webhook

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// service is an HTTP service that takes every mail.
type service struct {
	*httptest.Server
	connections atomic.Int64

	mu       sync.Mutex
	received []mailertest.Mail
}

func newService(t *testing.T) *service {
	s := new(service)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.take))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *service) take(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	var body struct {
		From    string
		To      []string
		Message []byte
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, mailertest.Mail{Envelope: mailer.Envelope{From: body.From, To: body.To}, Data: body.Message})
	w.WriteHeader(http.StatusAccepted)
}

func (s *service) mails() []mailertest.Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

func newBackend(t *testing.T, url string) *Backend {
	b, err := New(Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// The contract, sentence by sentence.
func TestConformance(t *testing.T) {
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		s := newService(t)
		return mailertest.Harness{
			Backend:     newBackend(t, s.URL),
			Received:    s.mails,
			Connections: func() int { return int(s.connections.Load()) },
			Down:        s.Close,
		}
	})
}

// What each answer means is the backend's own to test.
func TestBackend_SendMessages(t *testing.T) {
	hangUp := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	say := func(code int, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { http.Error(w, text, code) }
	}
	tests := []struct {
		name   string
		answer func(http.ResponseWriter)
		class  mailer.Class
		text   string
	}{
		{"bad request", say(400, "no such domain"), mailer.Permanent, "400 no such domain (end of data)"},
		{"wrong token", say(401, "who are you?"), mailer.Unavailable, "401 who are you? (AUTH)"},
		{"too many", say(429, "slower"), mailer.Unavailable, "429 slower (connect)"},
		{"no such sender", say(403, "not yours"), mailer.Unavailable, "403 not yours (end of data)"},
		{"broken", say(500, "oops"), mailer.Temporary, "500 oops (end of data)"},
		{"proxy", say(504, "no answer"), mailer.Unknown, "504 no answer (end of data)"},
		{"moved", say(308, "elsewhere"), mailer.Unavailable, "308 elsewhere (connect)"},
		{"no answer", hangUp, mailer.Unknown, "end of data: webhook: EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					tt.answer(w)
				}
			}))
			t.Cleanup(server.Close)
			sent, err := newBackend(t, server.URL).SendMessages(t.Context(), []*mailer.EmailMessage{{To: []string{"ann@example.org"}}})
			if got := mailer.ErrorAt(err, 0); sent != 0 || mailer.ClassOf(got) != tt.class || got.Error() != tt.text {
				t.Errorf("got %d, %v (%v), want 0, %s (%v)", sent, got, mailer.ClassOf(got), tt.text, tt.class)
			}
		})
	}
}

// What the service wants to wait is for the worker to know, and the rest of the batch leaves it alone.
func TestBackend_retryAfter(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			asked.Add(1)
			w.Header().Set("Retry-After", "90")
			http.Error(w, "slower", http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(server.Close)
	messages := []*mailer.EmailMessage{{To: []string{"ann@example.org"}}, {To: []string{"bob@example.org"}}}
	_, err := newBackend(t, server.URL).SendMessages(t.Context(), messages)
	for i := range messages {
		failure, ok := errors.AsType[*mailer.SendError](mailer.ErrorAt(err, i))
		if !ok || failure.Class != mailer.Unavailable || failure.RetryAfter != 90*time.Second {
			t.Errorf("message %d: %+v, want Unavailable for 90 s", i, failure)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "120": 2 * time.Minute, "soon": 0, "99999999999": 7 * 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
}

// A service with idempotency keys must not take a message for other recipients for a repetition.
func TestIdempotencyKey(t *testing.T) {
	m := &mailer.EmailMessage{FromEmail: "shop@example.com", MessageID: "<1@t>", To: []string{"ann@example.org", "bob@example.org"}}
	key := func(m *mailer.EmailMessage) string {
		envelope, err := m.Envelope()
		if err != nil {
			t.Fatal(err)
		}
		return idempotencyKey(m, envelope)
	}
	again := *m
	rest := m.WithRecipients([]string{"bob@example.org"})
	if key(&again) != key(m) || key(rest) == key(m) {
		t.Errorf("the keys are %q, again %q, and for the rest %q", key(m), key(&again), key(rest))
	}
}

// A worker that probes must not hear that all is well while its token is wrong.
func TestBackend_Open(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	for token, want := range map[string]bool{"right": true, "wrong": false, "": false} {
		b, err := New(Config{URL: server.URL, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := b.Open(t.Context())
		_ = b.Close()
		if opened != want || (err == nil) != want || (err != nil && mailer.ClassOf(err) != mailer.Unavailable) {
			t.Errorf("token %q: got %v, %v", token, opened, err)
		}
	}
}

func TestFromURL(t *testing.T) {
	for _, tt := range []struct{ url, wantURL, wantToken string }{
		{"webhook+https://SECRET@mail.example.com/v1/send?list=1", "https://mail.example.com/v1/send?list=1", "SECRET"},
		{"webhook+http://a%3Ab@127.0.0.1:8080", "http://127.0.0.1:8080", "a:b"},
		{"webhook+http://mx", "http://mx", ""},
		{"", "", ""},
		{"webhook+https://SECRET:SECRET@mx", "", ""},
		{"webhook+https://SECRET@mx#SECRET", "", ""},
		{"webhook+https:SECRET", "", ""},
		{"webhook+ftp://SECRET@mx", "", ""},
	} {
		var u *url.URL
		if tt.url != "" {
			u, _ = url.Parse(tt.url)
		}
		b, err := FromURL(u, mailer.Defaults{FromEmail: "shop@example.com"})
		switch {
		case err != nil && (tt.wantURL != "" || strings.Contains(err.Error(), "SECRET")):
			t.Errorf("%s: %v", tt.url, err)
		case err == nil && (b.cfg.URL != tt.wantURL || b.cfg.Token != tt.wantToken || b.cfg.Defaults.FromEmail != "shop@example.com"):
			t.Errorf("%s: got %+v", tt.url, b.cfg)
		}
	}
}

// Where the service is and how to get in shows in no error.
func TestBackend_secrets(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, address := range []string{server.Listener.Addr().String(), "no.such.host.invalid"} {
		u, err := url.Parse("webhook+http://SECRET@" + address + "/SECRET?k=SECRET")
		if err != nil {
			t.Fatal(err)
		}
		b, err := FromURL(u, mailer.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Open(t.Context()); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("Open: %v", err)
		}
		if _, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{{To: []string{"ann@example.org"}}}); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("SendMessages: %v", err)
		}
		_ = b.Close()
	}
}

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "mail.example.com", "ftp://mail.example.com/", "http://", "http://user:SECRET@mail example.com/"} {
		if _, err := New(Config{URL: bad}); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
