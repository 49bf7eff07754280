package tracing

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

var _ tasks.Tracer = (*Tracer)(nil)

// TestQueue: a request's trace goes through Redis, alone and with others in one task, and what
// is left of a message stays in it.
func TestQueue(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	tracer, spans := recorder(t)
	ours := New(tracer)
	request, web := tracer.Start(t.Context(), "POST /contact")
	queue := tasks.NewQueue(client, tasks.QueueConfig{Tracer: ours})
	letter := func(to string) *mailer.EmailMessage {
		return &mailer.EmailMessage{Subject: "secret subject", To: []string{to}, MessageID: "<" + to + ">"}
	}
	if _, err := queue.Enqueue(request, letter("yes@one")); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.SendMessages(request, []*mailer.EmailMessage{letter("yes@two"), letter("no@three")}); err != nil {
		t.Fatal(err)
	}
	web.End()
	work(t, client, ours, relay(t), 3)

	text := tree(spans.GetSpans(), trace.SpanID{}, "")
	for line, times := range map[string]int{
		"\n  send default": 2, "\n    process default": 4, "outcome=sent]": 2, // the dead letter is one in the bulk task, and then a task of its own
		"outcome=dead letter error.type=permanent] Error": 1, "\n      smtp send [mailpouch.message_id=": 3,
	} {
		if got := strings.Count(text, line); got != times {
			t.Errorf("%q is there %d times, want %d:\n%s", line, got, times, text)
		}
	}
	oneTrace(t, spans)
}

// work runs a worker until n messages have ended, and what came of them too.
func work(t *testing.T, client redis.UniversalClient, tracer *Tracer, addr string, n int) {
	t.Helper()
	ended := make(chan struct{}, 100)
	w, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(string) (mailer.Backend, error) {
			return smtp.New(smtp.Config{Addrs: []string{addr}, Hostname: "worker.example", Hooks: tracer.Hooks()})
		},
		Tracer:    tracer,
		Observers: []tasks.Observer{{Outcome: func(tasks.Outcome) { ended <- struct{}{} }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for range n {
		<-ended
	}
	dead := tasks.NewDeadLetters(client)
	for {
		if n, err := dead.Count(ctx, "default"); err != nil || n == 1 {
			break
		}
	}
	cancel()
	running.Wait()
}

func oneTrace(t *testing.T, spans *tracetest.InMemoryExporter) {
	t.Helper()
	traces := map[trace.TraceID]bool{}
	for _, s := range spans.GetSpans() {
		traces[s.SpanContext.TraceID()] = true
	}
	if len(traces) != 1 {
		t.Errorf("%d traces", len(traces))
	}
}
