package tracing

import (
	"context"
	"net"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/mailpouch/mailpouch/backends/smtp"
)

// Hooks make spans of what smtp backends do: one for each attempt to connect, below the first
// message of the batch that needs the connection, and one for each message that was given to
// a connection. WithMessages sets which message belongs to which trace. A message without a
// trace, or with one that is not recorded, has no spans and costs nothing.
func (t *Tracer) Hooks() *smtp.Hooks {
	return &smtp.Hooks{
		Connected: func(ctx context.Context, c smtp.Connected) { connected(ctx, t.tracer, c) },
		Settled:   func(ctx context.Context, s *smtp.Settled) { settled(ctx, t.tracer, s) },
	}
}

func connected(ctx context.Context, t trace.Tracer, c smtp.Connected) {
	ctx, ok := messageContext(ctx, 0)
	if !ok {
		return
	}
	_, span := t.Start(ctx, "smtp connect", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.Start))
	span.SetAttributes(server(c.Conn)...)
	for _, part := range []struct {
		name string
		took time.Duration
	}{{"dial", c.Dial}, {"tls", c.TLS}, {"greeting", c.Greeting}, {"ehlo", c.Hello}, {"auth", c.Auth}} {
		span.SetAttributes(seconds(part.name, part.took))
	}
	span.SetAttributes(
		attribute.String("tls.protocol.version", c.Conn.TLS), attribute.String("mailpouch.smtp.auth", c.Conn.Mechanism),
		attribute.StringSlice("mailpouch.smtp.features", c.Conn.Features),
	)
	finish(span, c.Err)
}

func settled(ctx context.Context, t trace.Tracer, s *smtp.Settled) {
	ctx, ok := messageContext(ctx, s.Index)
	if !ok {
		return
	}
	start := s.Start
	if start.IsZero() {
		start = time.Now() // the server was not asked: the message does not fit its extensions
	}
	_, span := t.Start(ctx, "smtp send", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(start))
	span.SetAttributes(server(s.Conn)...)
	span.SetAttributes(
		attribute.String("mailpouch.message_id", s.MessageID),
		attribute.Int("mailpouch.smtp.octets", s.Octets), attribute.String("mailpouch.smtp.way", string(s.Way)),
		attribute.Int("mailpouch.smtp.recipients", s.Recipients), attribute.Int("mailpouch.smtp.recipients_refused", len(s.Refused())),
		seconds("rset", s.Steps.Reset), seconds("mail", s.Steps.Mail), seconds("rcpt", s.Steps.Rcpt),
		seconds("data", s.Steps.Data), seconds("end_of_data", s.Steps.End),
	)
	finish(span, s.Result.Err)
}

// seconds is how long the client waited for the replies of one step.
func seconds(step string, d time.Duration) attribute.KeyValue {
	return attribute.Float64("mailpouch.smtp."+step+"_seconds", d.Seconds())
}

// server describes the other end of a connection.
func server(c *smtp.Conn) []attribute.KeyValue {
	list := []attribute.KeyValue{attribute.String("mailpouch.connection", c.ID), attribute.String("network.peer.address", c.Remote)}
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return append(list, attribute.String("server.address", c.Addr)) // a unix socket
	}
	list = append(list, attribute.String("server.address", host))
	if n, err := strconv.Atoi(port); err == nil {
		list = append(list, attribute.Int("server.port", n))
	}
	return list
}
