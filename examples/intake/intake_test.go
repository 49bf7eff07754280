package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

const (
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	other  = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// program finds a program that the examples are for.
func program(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := testserver.LookPath(name)
	if err != nil {
		testserver.Missing(t, name+" is not installed (Debian: apt-get install "+debian+")")
	}
	return path
}

// run1 runs a program with something to read, and returns what it prints.
func run1(t *testing.T, stdin, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin, c.Env = strings.NewReader(stdin), append(os.Environ(), "EMAIL_WEBHOOK_SECRET="+secret)
	out, err := c.CombinedOutput()
	return string(out), err
}

// kept is a webhook as it came.
type kept struct {
	id, timestamp, signature, body string
}

// receiver is the example's own, which keeps what comes.
func receiver(t *testing.T) (url string, events <-chan event, all func() []kept) {
	t.Helper()
	got := make(chan event, 100)
	h, err := receive(secret, func(e event) { got <- e })
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var posts []kept
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		posts = append(posts, kept{r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), r.Header.Get("webhook-signature"), string(body)})
		mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, got, func() []kept {
		mu.Lock()
		defer mu.Unlock()
		return append([]kept(nil), posts...)
	}
}

// Programs in Python and Node.js hand mail in, a worker delivers it, and the receiver learns it; what it got is verified by all three languages.
func TestIntake(t *testing.T) {
	python, node := program(t, "python3", "python3"), program(t, "node", "nodejs")
	redis := redistest.Start(t, redistest.Options{})
	url, events, posts := receiver(t)
	keys, smtpAddr, apiAddr := filepath.Join(t.TempDir(), "keys"), testserver.FreeAddr(t), testserver.FreeAddr(t)
	for name, value := range map[string]string{
		"REDIS_URL": redis.URL(), "EMAIL_QUEUE_BACKEND": "dummy", "EMAIL_HTTP_ADDR": "off", "EMAIL_HOSTNAME": "app.example.com",
		"EMAIL_SUBMISSION_ADDR": smtpAddr, "EMAIL_API_ADDR": apiAddr, "EMAIL_API_KEYS_FILE": keys,
		"EMAIL_WEBHOOK_URL": url, "EMAIL_WEBHOOK_SECRET": secret, "EMAIL_WEBHOOK_ALLOW_PRIVATE": "true",
	} {
		t.Setenv(name, value)
	}
	var key bytes.Buffer
	if code := workercli.Run(t.Context(), backends.Builtin(), []string{"key", "new", "shop", "--from", "example.com"}, &key, io.Discard); code != 0 {
		t.Fatalf("exit %d", code)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		ended <- workercli.Run(ctx, backends.Builtin(), []string{"run"}, io.Discard, zerolog.SyncWriter(&log))
	}()
	defer func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("the worker: exit %d\n%s", code, log.String())
		}
	}()
	client := redis.Client(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // until somebody listens, and the endpoint has its group
		if conn, err := net.Dial("tcp", apiAddr); err == nil {
			_ = conn.Close()
			if fields, _, _ := client.HScan(t.Context(), "mailpouch:events", 0, "group:webhook-*", 0).Result(); len(fields) > 0 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the worker does not start")
		}
	}
	host, port, _ := net.SplitHostPort(smtpAddr)
	for range 2 { // with the same idempotency key: it is one mail
		if out, err := run1(t, key.String(), python, "send.py", host, port); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	id, err := run1(t, key.String(), node, "send.mjs", "http://"+apiAddr)
	if err != nil {
		t.Fatalf("%v\n%s", err, id)
	}
	seen := map[string]int{}
	for range 4 {
		select {
		case e := <-events:
			seen[e.Type+" "+strings.Join(e.Data.To, " ")]++
			if strings.Join(e.Data.Tags, " ") != "api-key:shop" || strings.Contains(e.Data.To[0], "bob") && e.Data.EmailID != strings.TrimSpace(id) {
				t.Errorf("got %+v, want the ID %s", e, id)
			}
		case <-time.After(time.Minute):
			t.Fatalf("only %v", seen)
		}
	}
	for _, want := range []string{"email.queued ann@example.org", "email.sent ann@example.org", "email.queued bob@example.org", "email.sent bob@example.org"} {
		if seen[want] != 1 {
			t.Errorf("%d times %s: %v", seen[want], want, seen)
		}
	}
	p := posts()[0]
	for _, tt := range []struct {
		name string
		post kept
		ok   bool
	}{
		{"as it came", p, true},
		{"two signatures", kept{p.id, p.timestamp, "v1,AAAA " + p.signature, p.body}, true},
		{"another body", kept{p.id, p.timestamp, p.signature, p.body + " "}, false},
		{"another event", kept{p.id + "x", p.timestamp, p.signature, p.body}, false},
		{"old", kept{p.id, "1700000000", p.signature, p.body}, false},
		{"no signature", kept{p.id, p.timestamp, "v1,", p.body}, false},
	} {
		for language, args := range map[string][]string{"Python": {python, "verify.py"}, "Node.js": {node, "verify.mjs"}} {
			out, err := run1(t, tt.post.body, args[0], args[1], tt.post.id, tt.post.timestamp, tt.post.signature)
			if (err == nil) != tt.ok {
				t.Errorf("%s in %s: %v\n%s", tt.name, language, err, out)
			}
		}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.post.body))
		for name, value := range map[string]string{"webhook-id": tt.post.id, "webhook-timestamp": tt.post.timestamp, "webhook-signature": tt.post.signature} {
			r.Header.Set(name, value)
		}
		for with, ok := range map[string]bool{secret: tt.ok, other: false} {
			h, err := receive(with, func(event) {})
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			body := *r
			body.Body = io.NopCloser(strings.NewReader(tt.post.body))
			if h.ServeHTTP(w, &body); (w.Code == http.StatusNoContent) != ok {
				t.Errorf("%s in Go: %d %s", tt.name, w.Code, w.Body)
			}
		}
	}
}

func TestRead(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	client := redis.Client(t)
	go func() { ended <- read(ctx, client) }()
	for deadline := time.Now().Add(time.Minute); client.HLen(t.Context(), "mailpouch:events").Val() < 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not begin to read")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRun_usage(t *testing.T) {
	for _, args := range [][]string{nil, {"a", "b"}, {"127.0.0.1:0"}} {
		t.Setenv("EMAIL_WEBHOOK_SECRET", "")
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
