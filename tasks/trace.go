package tasks

import (
	"context"
)

// Tracer takes the trace of a request with its mail through the queue to the mail server.
// Package tracing makes one of OpenTelemetry. What it returns goes into tasks and logs of
// others, so it must hold no more than identifiers.
type Tracer interface {
	// Enqueue starts the span of a hand-over. end is called once, with the ID of the task,
	// which may carry many messages.
	Enqueue(ctx context.Context, queue string) (_ context.Context, end func(taskID string, err error))

	// Headers is what a task is to carry of the trace of ctx: nothing if nil.
	Headers(ctx context.Context) map[string]string

	// Process starts the span of a try of a message whose task has carried the headers. end
	// is called once: with what the worker did, an Action, or "" if the try did not end,
	// for the message was given back to the queue.
	Process(ctx context.Context, headers map[string]string, queue, taskID string) (_ context.Context, end func(action string, err error))

	// WithMessages returns the context in which a backend sends a batch, whose messages have
	// these contexts, by their index.
	WithMessages(batch context.Context, messages []context.Context) context.Context
}

// span is the trace of one try of a message. A nil one does nothing.
type span struct {
	ctx context.Context //nolint:containedctx // it goes with the message from the handler to the sender
	end func(action string, err error)
}

// startSpan starts the span of a try, if there is a tracer.
func startSpan(ctx context.Context, tracer Tracer, headers map[string]string, queue, id string) *span {
	if tracer == nil {
		return nil
	}
	s := new(span)
	s.ctx, s.end = tracer.Process(ctx, headers, queue, id)
	return s
}

// done ends the span. What came first counts.
func (s *span) done(action string, err error) {
	if s != nil && s.end != nil {
		s.end(action, err)
		s.end = nil
	}
}

// traced hands over in a span, if there is a tracer. do gets what the task is to carry.
func traced(ctx context.Context, tracer Tracer, queue, id string, do func(ctx context.Context, headers map[string]string) error) error {
	if tracer == nil {
		return do(ctx, nil)
	}
	ctx, end := tracer.Enqueue(ctx, queue)
	err := do(ctx, tracer.Headers(ctx))
	end(id, err)
	return err
}
