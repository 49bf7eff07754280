package main

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/mailpouch/mailpouch/backends/smtp"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// mailServer remembers the mail that it takes: its message by the sender of its envelope.
type mailServer struct {
	mu    sync.Mutex
	taken map[string]string
	came  chan struct{}
}

func (s *mailServer) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	return &mailSession{server: s}, nil
}

type mailSession struct {
	server *mailServer
	from   string
}

func (s *mailSession) Mail(from string, _ *gosmtp.MailOptions) error {
	s.from = from
	return nil
}
func (s *mailSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (s *mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.server.mu.Lock()
	s.server.taken[s.from] = string(text)
	s.server.mu.Unlock()
	s.server.came <- struct{}{}
	return err
}
func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// What the flags and a line say of a list arrives at the mail server, and what a queue keeps of it every worker reads.
func TestLists(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, args := range [][]string{
		{"send", "--from", "shop@example.com", "--to", "ann@example.com", "--body", "News.", "--verp", "bounces@example.org", "--unsubscribe-url", "https://example.com/u/1", "--one-click", "--unsubscribe-mailto", "leave@example.com"},
		{"bulk", file(t, "list", `{"from_email": "shop@example.com", "body": "News.", "to": ["bob@example.com"], "list_unsubscribe": {"url": "https://example.com/u/2"}}`+"\n"+
			`{"from_email": "shop@example.com", "body": "News.", "to": ["cy@example.com"], "verp": "own@example.org"}`), "--verp", "bounces@example.org", "--unsubscribe-mailto", "leave@example.com"},
	} {
		if got := enqueue(t, "", args...); got.code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, got.code, got.err)
		}
	}
	client := server.Client(t)
	for _, key := range client.Keys(t.Context(), "asynq:{default}:t:*").Val() {
		if text := client.HGet(t.Context(), key, "msg").Val(); strings.Contains(text, "verp") || strings.Contains(text, "list_unsubscribe") || !strings.Contains(text, "List-Unsubscribe") {
			t.Errorf("%s has what a worker of an earlier version does not read, or is not seen to have the list: %s", key, text)
		}
	}

	relay := &mailServer{taken: map[string]string{}, came: make(chan struct{}, 10)}
	s := gosmtp.NewServer(relay)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	w, err := tasks.NewWorker(client, tasks.WorkerConfig{Connect: func(string) (mailer.Backend, error) {
		return smtp.New(smtp.Config{Addrs: []string{l.Addr().String()}})
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	serving.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	for range 3 {
		select {
		case <-relay.came:
		case <-time.After(time.Minute):
			t.Error("the mail does not come")
		}
	}
	cancel()
	serving.Wait()
	for sender, fields := range map[string][]string{
		"bounces+ann=example.com@example.org": {"List-Unsubscribe: <https://example.com/u/1>, <mailto:leave@example.com>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "Precedence: bulk"},
		"bounces+bob=example.com@example.org": {"List-Unsubscribe: <https://example.com/u/2>"},
		"own+cy=example.com@example.org":      {"List-Unsubscribe: <mailto:leave@example.com>"},
	} {
		for _, field := range fields {
			if !strings.Contains(unfold(relay.taken[sender]), "\r\n"+field+"\r\n") {
				t.Errorf("the message from %s lacks %q:\n%s", sender, field, relay.taken[sender])
			}
		}
	}
	if len(relay.taken) != 3 {
		t.Errorf("senders: %v", relay.taken)
	}
}

func TestLists_bad(t *testing.T) {
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for want, args := range map[string][]string{
		"verp: takes a message for each recipient":       {"send", "--to", "a@example.com", "--cc", "b@example.com", "--verp", "bounces@example.org"},
		"list_unsubscribe.url: has to begin with":        {"send", "--to", "a@example.com", "--unsubscribe-url", "http://example.com/", "--one-click"},
		"list_unsubscribe.mailto: is not":                {"send", "--to", "a@example.com", "--unsubscribe-mailto", "leave"},
		"line 1: invalid message: verp: takes a message": {"bulk", file(t, "two", `{"to": ["a@example.com", "b@example.com"]}`), "--verp", "bounces@example.org"},
	} {
		if got := enqueue(t, "", args...); got.code != 65 || !strings.Contains(got.err, want) {
			t.Errorf("%q: exit code %d, %q, want %q", args, got.code, got.err, want)
		}
	}
}
