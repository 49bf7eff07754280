package workercli

import (
	"go.opentelemetry.io/otel"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/tasks"
	"github.com/mailpouch/mailpouch/tracing"
)

// trace makes the worker continue the traces that its messages belong to. Who wants to see
// them sets OpenTelemetry's TracerProvider in a main of their own before Main; without
// one nothing is recorded.
func trace(cfg *tasks.WorkerConfig) {
	tracer := tracing.New(otel.Tracer(tracing.Scope))
	cfg.Tracer = tracer
	cfg.Connect = hooked(cfg.Connect, func(string) *smtp.Hooks { return tracer.Hooks() })
}
