package relays

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// house is a Redis, and workers that deliver what waits there to one relay.
type house struct {
	t     *testing.T
	redis *redistest.Server
	queue *tasks.Queue
	sent  int
	most  int // connections that a worker's may become

	allowed atomic.Int64 // connections, as observers hear
	carries atomic.Int64 // messages over one connection, as observers hear

	mu  sync.Mutex
	log bytes.Buffer
}

func newHouse(t *testing.T, bulk int) *house {
	t.Helper()
	h := &house{t: t, redis: redistest.Start(t, redistest.Options{})}
	h.queue = tasks.NewQueue(h.redis.Client(t), tasks.QueueConfig{BulkSize: bulk})
	return h
}

// newHouseOn is another one with the same Redis.
func newHouseOn(other *house) *house {
	return &house{t: other.t, redis: other.redis, queue: other.queue, sent: 1_000_000}
}

// send queues n messages.
func (h *house) send(n int, queue string) {
	h.t.Helper()
	h.sendFrom("shop@example.com", n, queue)
}

func (h *house) sendFrom(from string, n int, queue string) {
	h.t.Helper()
	messages := make([]*mailer.EmailMessage, n)
	for i := range messages {
		h.sent++
		messages[i] = &mailer.EmailMessage{
			Subject: "hello", Body: "It works.", FromEmail: from, To: []string{"ann@example.com"},
			MessageID: fmt.Sprintf("<%d@app.example>", h.sent),
		}
	}
	if _, err := h.queue.With(tasks.Options{Queue: queue}).SendMessages(h.t.Context(), messages); err != nil {
		h.t.Fatal(err)
	}
}

// sendTo queues a message in a task of its own.
func (h *house) sendTo(to []string, o tasks.Options) {
	h.t.Helper()
	h.sent++
	m := &mailer.EmailMessage{Body: "It works.", FromEmail: "shop@example.com", To: to, MessageID: fmt.Sprintf("<%d@app.example>", h.sent)}
	if _, err := h.queue.With(o).Enqueue(h.t.Context(), m); err != nil {
		h.t.Fatal(err)
	}
}

// Write is for the workers' log.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

// logged counts the lines of the log with that text.
func (h *house) logged(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.log.String(), text)
}

// worker starts a worker until stop is called or the test ends.
func (h *house) worker(cfg smtp.Config, connections int, queues map[string]int) (w *tasks.Worker, stop func()) {
	h.t.Helper()
	w, end := h.run(cfg, tasks.WorkerConfig{Connections: connections, ConnectionsMax: map[string]int{"": h.most}, Queues: queues, Observers: []tasks.Observer{{
		Connections:  func(_ string, allowed, _ int) { h.allowed.Store(int64(allowed)) },
		SessionLimit: func(_ string, messages int) { h.carries.Store(int64(messages)) },
	}}})
	stop = sync.OnceFunc(func() {
		if err := end(); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	h.t.Cleanup(stop)
	return w, stop
}

// run runs a worker until stop is called, which returns its error, or the test ends.
func (h *house) run(cfg smtp.Config, c tasks.WorkerConfig) (w *tasks.Worker, stop func() error) {
	h.t.Helper()
	log := zerolog.New(h).With().Timestamp().Logger().Level(zerolog.DebugLevel)
	if c.Connect == nil {
		c.Connect = func(string) (mailer.Backend, error) { return smtp.New(cfg) }
	}
	c.Logger, c.RetryMin, c.RetryMax = &log, 10*time.Millisecond, 20*time.Millisecond
	w, err := tasks.NewWorker(h.redis.Client(h.t), c)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	h.t.Cleanup(func() {
		_ = stop()
		if h.t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.t.Logf("log:\n%.6000s", h.log.String())
		}
	})
	return w, stop
}

// wait waits until the relay has taken n messages, and returns how long that took.
func (h *house) wait(r *relay, n int, limit time.Duration) time.Duration {
	h.t.Helper()
	began := time.Now()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for i := range n {
		select {
		case <-r.arrived:
		case <-timer.C:
			h.t.Fatalf("%d of %d messages arrived within %v", i, n, limit)
		}
	}
	return time.Since(began)
}

// once checks that the relay has taken everything, and once.
func (h *house) once(r *relay) {
	h.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	h.eachOnce(r.taken)
}

// eachOnce checks that everything was taken, and once: how often each message was, by its Message-ID.
func (h *house) eachOnce(taken map[string]int) {
	h.t.Helper()
	if len(taken) != h.sent {
		h.t.Errorf("%d messages delivered, want %d", len(taken), h.sent)
	}
	for id, n := range taken {
		if n != 1 {
			h.t.Errorf("%s was delivered %d times", id, n)
		}
	}
}

func (h *house) eventually(what string, limit time.Duration, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
