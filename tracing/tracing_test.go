package tracing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/mailer"
)

// recorder is a tracer, and what it has recorded.
func recorder(t *testing.T) (trace.Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer(Scope), spans
}

// relay is a server that refuses those who are called "no", and says too much.
func relay(t *testing.T) string {
	t.Helper()
	server, err := catcher.Start(catcher.Config{Decide: func(_ context.Context, s catcher.Step) error {
		if s.Command == "RCPT" && strings.HasPrefix(s.To[0], "no@") {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "secret words about no@example.com"}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server.Addr()
}

func send(t *testing.T, ctx context.Context, hooks *smtp.Hooks, addr string, to ...string) { //nolint:revive // t goes first in a test
	t.Helper()
	b, err := smtp.New(smtp.Config{Addrs: []string{addr}, Hostname: "worker.example", Hooks: hooks})
	if err != nil {
		t.Fatal(err)
	}
	var messages []*mailer.EmailMessage
	for i, address := range to {
		messages = append(messages, &mailer.EmailMessage{
			Subject: "secret subject", Body: "secret body", FromEmail: "secret@example.com", To: []string{address},
			MessageID: fmt.Sprintf("<%d@app.example>", i),
		})
	}
	b.SendBatch(ctx, mailer.Batch{Messages: messages, Report: func([]mailer.Report) {}})
}

// TestWholeWay: from the program that hands a message over to the mail server it is one trace.
func TestWholeWay(t *testing.T) {
	tracer, spans := recorder(t)
	request, web := tracer.Start(t.Context(), "POST /contact")
	var headers []map[string]string
	for i := range 2 {
		ctx, end := New(tracer).Enqueue(request, "default")
		headers = append(headers, New(nil).Headers(ctx))
		end(fmt.Sprint("task", i), nil)
	}
	web.End()

	// In another process, later.
	var messages []context.Context
	var ends []func(string, error)
	for i, h := range headers {
		ctx, end := New(tracer).Process(t.Context(), h, "default", fmt.Sprint("task", i))
		messages, ends = append(messages, ctx), append(ends, end)
	}
	send(t, New(nil).WithMessages(t.Context(), messages), New(tracer).Hooks(), relay(t), "yes@example.com", "no@example.com")
	ends[0]("sent", nil)
	ends[1]("dead letter", &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Text: "secret words"})

	got := tree(spans.GetSpans(), trace.SpanID{}, "")
	want := `POST /contact
  send default [messaging.message.id=task0]
    process default [messaging.message.id=task0 mailpouch.outcome=sent]
      smtp connect []
      smtp send [mailpouch.message_id=<0@app.example>]
  send default [messaging.message.id=task1]
    process default [messaging.message.id=task1 mailpouch.outcome=dead letter error.type=permanent] Error "RCPT 550"
      smtp send [mailpouch.message_id=<1@app.example> error.type=permanent] Error "RCPT 550"
`
	if strings.ReplaceAll(got, "POST /contact []", "POST /contact") != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	traces := map[trace.TraceID]bool{}
	for _, s := range spans.GetSpans() {
		traces[s.SpanContext.TraceID()] = true
		if text := fmt.Sprint(s.Name, s.Attributes, s.Status, s.Events); strings.Contains(text, "secret") || strings.Contains(text, "@example.com") {
			t.Errorf("a secret is told: %s", text)
		}
		if s.EndTime.Before(s.StartTime) {
			t.Errorf("%s ends before it begins", s.Name)
		}
	}
	if len(traces) != 1 {
		t.Errorf("%d traces", len(traces))
	}
}

// tree writes the spans below one, in the order of their beginning, with some attributes.
func tree(spans tracetest.SpanStubs, parent trace.SpanID, indent string) string {
	var b strings.Builder
	var below []tracetest.SpanStub
	for _, s := range spans {
		if s.Parent.SpanID() == parent {
			below = append(below, s)
		}
	}
	for i := range below {
		for j := i + 1; j < len(below); j++ {
			if below[j].StartTime.Before(below[i].StartTime) {
				below[i], below[j] = below[j], below[i]
			}
		}
		s := below[i]
		var shown []string
		for _, a := range s.Attributes {
			switch a.Key {
			case "messaging.message.id", "mailpouch.outcome", "mailpouch.message_id", "error.type":
				shown = append(shown, fmt.Sprintf("%s=%s", a.Key, a.Value.String()))
			}
		}
		fmt.Fprintf(&b, "%s%s %v", indent, s.Name, shown)
		if s.Status.Code != codes.Unset {
			fmt.Fprintf(&b, " %s %q", s.Status.Code, s.Status.Description)
		}
		b.WriteString("\n" + tree(spans, s.SpanContext.SpanID(), indent+"  "))
	}
	return b.String()
}

// TestHooks_attributes: what the span of a connection and of a message tell.
func TestHooks_attributes(t *testing.T) {
	tracer, spans := recorder(t)
	addr := relay(t)
	request, _ := tracer.Start(t.Context(), "POST /contact")
	send(t, request, New(tracer).Hooks(), addr, "yes@example.com")
	told := map[string]map[string]string{}
	for _, s := range spans.GetSpans() {
		told[s.Name] = map[string]string{}
		for _, a := range s.Attributes {
			told[s.Name][string(a.Key)] = a.Value.String()
		}
	}
	connect, sent := told["smtp connect"], told["smtp send"]
	if connect["network.peer.address"] != addr || connect["server.address"] != "127.0.0.1" || connect["mailpouch.smtp.dial_seconds"] == "0" ||
		!strings.Contains(connect["mailpouch.smtp.features"], "PIPELINING") {
		t.Errorf("%v", connect)
	}
	if sent["mailpouch.smtp.way"] != "pipelined" || sent["mailpouch.smtp.recipients"] != "1" || sent["mailpouch.smtp.end_of_data_seconds"] == "0" ||
		sent["mailpouch.connection"] == "" || sent["mailpouch.connection"] != connect["mailpouch.connection"] {
		t.Errorf("%v", sent)
	}
}

// TestHooks_noConnection: an attempt that failed is a span too.
func TestHooks_noConnection(t *testing.T) {
	tracer, spans := recorder(t)
	request, _ := tracer.Start(t.Context(), "POST /contact")
	send(t, request, New(tracer).Hooks(), "127.0.0.1:1", "yes@example.com")
	list := spans.GetSpans()
	if len(list) != 1 || list[0].Status.Code != codes.Error || list[0].Status.Description != "connect" {
		t.Errorf("%+v", list)
	}
}

// TestHooks_notTraced: a message in no trace, or in one that nobody records, begins none.
func TestHooks_notTraced(t *testing.T) {
	tracer, spans := recorder(t)
	unsampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})
	for _, ctx := range []context.Context{t.Context(), trace.ContextWithSpanContext(t.Context(), unsampled)} {
		send(t, New(nil).WithMessages(ctx, []context.Context{ctx}), New(tracer).Hooks(), relay(t), "yes@example.com", "no@example.com")
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// TestEnqueue_failed: the span tells that, and not the text.
func TestEnqueue_failed(t *testing.T) {
	tracer, spans := recorder(t)
	_, end := New(tracer).Enqueue(t.Context(), "default")
	end("", errors.New("redis://user:secret@host: secret"))
	s := spans.GetSpans()[0]
	if s.Status.Code != codes.Error || strings.Contains(fmt.Sprint(s), "secret") {
		t.Errorf("%+v", s)
	}
}

// TestHeaders: without a trace a task carries nothing, and what cannot be read is no trace.
func TestHeaders(t *testing.T) {
	if h := New(nil).Headers(t.Context()); h != nil {
		t.Errorf("%v", h)
	}
	for _, h := range []map[string]string{nil, {}, {"traceparent": "what?"}} {
		if c := trace.SpanContextFromContext(withHeaders(t.Context(), h)); c.IsValid() {
			t.Errorf("%v: %v", h, c)
		}
	}
}

// BenchmarkHooks_off is what a message costs when nobody records.
func BenchmarkHooks_off(b *testing.B) {
	hooks := New(noop.NewTracerProvider().Tracer(Scope)).Hooks()
	s := &smtp.Settled{Conn: &smtp.Conn{ID: "ABC"}, MessageID: "<1@x>"}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		hooks.Settled(ctx, s)
	}
}
