package workercli

import (
	"go.opentelemetry.io/otel"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/tasks"
	"github.com/mailpouch/mailpouch/tracing"
)

// trace makes the worker continue the traces that its messages belong to. To record them, a
// program sets OpenTelemetry's TracerProvider in its own main before Main. Without one
// nothing is recorded.
func trace(cfg *tasks.WorkerConfig) {
	tracer := tracing.New(otel.Tracer(tracing.Scope))
	cfg.Tracer = tracer
	cfg.Connect = hooked(cfg.Connect, func(string) *smtp.Hooks { return tracer.Hooks() })
}
