// Package tracing makes OpenTelemetry spans of mail on its way: of handing over, of a
// worker's try, and of the SMTP conversation. It uses OpenTelemetry's API alone: which
// spans are kept and where they go is up to the program's TracerProvider, and without one
// nothing is recorded.
//
//	send default       a program hands a message over
//	└ process default  a worker tries it, now or tomorrow
//	  ├ smtp connect   if a connection had to be opened for it
//	  └ smtp send      from MAIL to the server's verdict
//
// A Tracer is the tasks.QueueConfig.Tracer of the program and the tasks.WorkerConfig.Tracer
// of the worker, and its Hooks are those of the worker's smtp backends. The context goes
// through the queue as W3C Trace Context. Spans hold no address, subject, body or text of
// a server. A message is known by its Message-ID and its task.
package tracing

import (
	"context"
	"errors"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/mailpouch/mailpouch/mailer"
)

// Scope is the name to ask a TracerProvider for a Tracer by.
const Scope = "github.com/mailpouch/mailpouch/tracing"

// Tracer implements tasks.Tracer.
type Tracer struct{ tracer trace.Tracer }

// New returns a Tracer that makes its spans with t, such as otel.Tracer(Scope).
func New(t trace.Tracer) *Tracer { return &Tracer{t} }

// Headers returns the trace context of ctx for a task to carry, or nil if there is none.
func (*Tracer) Headers(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier
}

// withHeaders returns ctx with the trace context that a task has carried, if any.
func withHeaders(ctx context.Context, headers map[string]string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(headers))
}

// Enqueue starts the span of a hand-over. The Headers of the returned context go into the
// task, and end takes the task's ID.
func (t *Tracer) Enqueue(ctx context.Context, queue string) (_ context.Context, end func(taskID string, err error)) {
	ctx, span := t.tracer.Start(ctx, "send "+queue, trace.WithSpanKind(trace.SpanKindProducer))
	span.SetAttributes(messaging("send", queue)...)
	return ctx, func(taskID string, err error) {
		span.SetAttributes(attribute.String("messaging.message.id", taskID))
		finish(span, err)
	}
}

// Process starts the span of a worker's try of a message. Its parent is the trace context of
// the task, or else ctx. end takes the outcome, such as "sent", and its reason.
func (t *Tracer) Process(ctx context.Context, headers map[string]string, queue, taskID string) (_ context.Context, end func(action string, err error)) {
	ctx, span := t.tracer.Start(withHeaders(ctx, headers), "process "+queue, trace.WithSpanKind(trace.SpanKindConsumer))
	if !span.IsRecording() {
		return ctx, func(string, error) { span.End() }
	}
	span.SetAttributes(append(messaging("process", queue), attribute.String("messaging.message.id", taskID))...)
	return ctx, func(action string, err error) {
		span.SetAttributes(attribute.String("mailpouch.outcome", action))
		finish(span, err)
	}
}

func messaging(operation, queue string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "asynq"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", queue),
	}
}

// finish ends a span. Of err it records class, step and codes, and no text.
func finish(span trace.Span, err error) {
	defer span.End()
	if err == nil {
		return
	}
	var failure *mailer.SendError
	if !errors.As(err, &failure) {
		span.SetStatus(codes.Error, "")
		return
	}
	what := string(failure.Step)
	span.SetAttributes(attribute.String("error.type", failure.Class.String()), attribute.String("mailpouch.smtp.step", what))
	if failure.Code != 0 {
		what += " " + strconv.Itoa(failure.Code)
		span.SetAttributes(attribute.Int("mailpouch.smtp.code", failure.Code), attribute.String("mailpouch.smtp.enhanced_code", failure.Enhanced))
	}
	span.SetStatus(codes.Error, what)
}

// messagesKey finds the contexts of a batch's messages in its own.
type messagesKey struct{}

// WithMessages returns the context for SendBatch of a batch whose messages have these contexts,
// by their index: the spans of each message go under its own.
func (*Tracer) WithMessages(batch context.Context, messages []context.Context) context.Context {
	return context.WithValue(batch, messagesKey{}, messages)
}

// messageContext is the context of the message at index i: the batch's own, if WithMessages
// has none for it. ok reports whether its trace is recorded.
func messageContext(batch context.Context, i int) (_ context.Context, ok bool) {
	ctx := batch
	if messages, _ := batch.Value(messagesKey{}).([]context.Context); i < len(messages) {
		ctx = messages[i]
	}
	return ctx, trace.SpanContextFromContext(ctx).IsSampled()
}
