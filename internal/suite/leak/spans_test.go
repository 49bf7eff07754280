package leak

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
	"github.com/mailpouch/mailpouch/tracing"
)

// broken is a backend that cannot cope with a message and says so, message and all.
type broken struct{}

func (broken) Open(context.Context) (bool, error) { return true, nil }
func (broken) Close() error                       { return nil }

func (broken) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	for _, m := range messages {
		switch m.MessageID {
		case "<panics.with.text@shop.example.com>":
			panic("no idea what this is: " + string(panicText) + m.Body)
		case "<panics.with.error@shop.example.com>":
			panic(fmt.Errorf("%s: %v", panicText, m))
		case "<panics.by.mistake@shop.example.com>":
			_ = m.Attachments[len(m.Body)]
		}
	}
	errs := make(mailer.SendErrors, len(messages))
	for i, m := range messages {
		errs[i] = fmt.Errorf("cannot send %q: %+v", m.Subject, *m)
	}
	return 0, errs
}

// lockedBuffer is written by several goroutines, and tells of each line.
type lockedBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	b.lines <- string(p)
	return len(p), nil
}

// TestSpans: OpenTelemetry's spans of a worker in this process, and a backend of somebody
// else's that panics and talks too much.
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	otel.SetTracerProvider(provider)
	server := redistest.Start(t, redistest.Options{})
	for _, v := range startRelay(t, false).env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_MAILERS", "other")
	t.Setenv("EMAIL_OTHER_BACKEND", "broken")
	t.Setenv("EMAIL_HTTP_ADDR", "off")
	registry := backends.Builtin()
	registry["broken"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return broken{}, nil }}

	queue := tasks.NewQueue(server.Client(t), tasks.QueueConfig{Mailers: []string{"other"}, Tracer: tracing.New(provider.Tracer(tracing.Scope))}).
		With(tasks.Options{MaxRetry: new(0)})
	ends := enqueueTraced(t, queue)

	log := &lockedBuffer{lines: make(chan string, 100_000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { done <- workercli.Run(ctx, registry, []string{"run"}, log, log) }()
	for ends > 0 {
		select {
		case line := <-log.lines:
			if strings.Contains(line, `"message":"sent"`) || strings.Contains(line, `"message":"dead letter"`) {
				ends--
			}
		case <-time.After(patience):
			t.Fatalf("%d ends are missing:\n%s", ends, log.text.String())
		case code := <-done:
			t.Fatalf("the worker ended: %d\n%s", code, log.text.String())
		}
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
	find(t, "the log", log.text.String(), everything())
	if !strings.Contains(log.text.String(), "the backend panicked: with a string") || !strings.Contains(log.text.String(), "index out of range") {
		t.Errorf("the log does not say how a backend panicked:\n%s", log.text.String())
	}
	site := &site{T: t, redis: server}
	if n := site.checkTasks(server.Client(t), slices.Concat(credentials(), contents(), titles())); n < 10 {
		t.Errorf("%d tasks have a reason", n)
	}
	sent := 0
	for _, span := range spans.GetSpans() {
		find(t, "a span", fmt.Sprintf("%+v", span), everything())
		if span.Name == "smtp send" {
			sent++
		}
	}
	if sent < 30 {
		t.Errorf("%d spans of sending", sent)
	}
}

// enqueueTraced hands over messages of every kind, and returns how many ends they will come to.
func enqueueTraced(t *testing.T, queue *tasks.Queue) int {
	t.Helper()
	all := messages()
	if _, err := queue.SendMessages(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	other, err := queue.Using("other")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"panics.with.text", "panics.with.error", "panics.by.mistake", "fails"} {
		m := message("never", "x")
		m.MessageID = "<" + id + "@shop.example.com>"
		if _, err := other.SendMessages(t.Context(), []*mailer.EmailMessage{m}); err != nil {
			t.Fatal(err)
		}
	}
	return len(all) + len(repeats()) - 1 + 4
}
