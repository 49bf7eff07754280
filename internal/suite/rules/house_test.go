package rules

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// house is a Redis, a mail server, and a worker with the settings of the environment.
type house struct {
	t      *testing.T
	server *server
	redis  *redistest.Server
	queue  *tasks.Queue

	mu       sync.Mutex
	log      bytes.Buffer
	outcomes []tasks.Outcome
}

// newHouse sets these variables and no others, but for what the house needs. The worker works until the test ends.
func newHouse(t *testing.T, vars map[string]string, hooks ...tasks.BeforeSend) *house {
	t.Helper()
	h := &house{t: t, server: startServer(t), redis: redistest.Start(t, redistest.Options{})}
	for _, d := range settings.Describe(settings.Default()) {
		t.Setenv(d.Name, "")
		_ = os.Unsetenv(d.Name)
	}
	host, port, _ := net.SplitHostPort(h.server.addr)
	for name, value := range map[string]string{
		"REDIS_URL": h.redis.URL(), "EMAIL_HOST": host, "EMAIL_PORT": port, "EMAIL_HOSTNAME": "worker.example.com",
		"EMAIL_CONNECTIONS": "1", "EMAIL_RETRY_MIN": "1s", "EMAIL_RETRY_MAX": "1s",
	} {
		t.Setenv(name, value)
	}
	for name, value := range vars {
		t.Setenv(name, strings.ReplaceAll(value, "{port}", port))
	}
	s, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	h.queue = tasks.NewQueue(h.redis.Client(t), mailpouch.QueueConfig(s))
	cfg, err := mailpouch.WorkerConfig(t.Context(), s, backends.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	log := zerolog.New(h)
	cfg.Logger, cfg.BeforeSend = &log, hooks
	cfg.RetryMin, cfg.RetryMax = 10*time.Millisecond, 20*time.Millisecond
	cfg.Observers = []tasks.Observer{{Outcome: func(o tasks.Outcome) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.outcomes = append(h.outcomes, o)
	}}}
	w, err := tasks.NewWorker(h.redis.Client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Logf("log:\n%.6000s", h.log.String())
		}
	})
	return h
}

// Write is for the worker's log.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

// logged reports whether the log has a text.
func (h *house) logged(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.log.String(), text)
}

// says is the server's, with its lock.
func (h *house) says(change func(s *server)) {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	change(h.server)
}

// message is one of the number n.
func message(n int, change ...func(*mailer.EmailMessage)) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: fmt.Sprint("Letter ", n), Body: "It works.", FromEmail: "shop@example.com", To: []string{"ann@example.org"},
		MessageID: fmt.Sprintf("<%d@app.example>", n), Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func to(recipients ...string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.To = recipients }
}

func bcc(recipients ...string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Bcc = recipients }
}

// send queues messages.
func (h *house) send(o tasks.Options, messages ...*mailer.EmailMessage) {
	h.t.Helper()
	if sent, err := h.queue.With(o).SendMessages(h.t.Context(), messages); sent != len(messages) || err != nil {
		h.t.Fatalf("%d queued, %v", sent, err)
	}
}

// ended waits until as many tries have ended with these actions, and returns them all.
func (h *house) ended(want map[tasks.Action]int) []tasks.Outcome {
	h.t.Helper()
	got := map[tasks.Action]int{}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		h.mu.Lock()
		all := slices.Clone(h.outcomes)
		h.mu.Unlock()
		clear(got)
		for _, o := range all {
			got[o.Action]++
		}
		there := true
		for action, n := range want {
			there = there && got[action] >= n
		}
		if there {
			for action, n := range got {
				if n != want[action] {
					h.t.Errorf("%d outcomes are %q, want %d", n, action, want[action])
				}
			}
			return all
		}
	}
	h.t.Fatalf("after two minutes there are %v, want %v", got, want)
	return nil
}

// dead are the reasons of dead letters, by their recipients.
func dead(all []tasks.Outcome) map[string]string {
	reasons := map[string]string{}
	for _, o := range all {
		if o.Action == tasks.ActionDead {
			reasons[strings.Join(o.Recipients, " ")] = o.Err.Error()
		}
	}
	return reasons
}
