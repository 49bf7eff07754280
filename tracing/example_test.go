package tracing_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tracing"
)

// A program that has set a TracerProvider sees its mail in the traces of its requests. Here
// is none, so nothing is recorded and the mail goes out all the same.
func ExampleTracer_Hooks() {
	server, err := catcher.Start(catcher.Config{}) // your mail server
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	backend, err := smtp.New(smtp.Config{Addrs: []string{server.Addr()}, Hooks: tracing.New(otel.Tracer(tracing.Scope)).Hooks()})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := backend.SendMessages(context.Background(), []*mailer.EmailMessage{
		{Subject: "one", FromEmail: "shop@example.com", To: []string{"fred@example.org"}},
	})
	fmt.Println(sent, err)
	// Output: 1 <nil>
}
