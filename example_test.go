package mailpouch_test

import (
	"context"
	"fmt"
	"os"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// The environment says where the queue is. A worker with the same REDIS_URL delivers.
func Example() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	_ = os.Setenv("REDIS_URL", server.URL())
	defer func() { _ = os.Unsetenv("REDIS_URL") }()

	ctx := context.Background()
	app, err := mailpouch.Open(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = app.Close() }()
	sent, err := app.Mailer.SendMail(ctx, "Hello", "It works.", "", []string{"ann@example.org"}, nil)
	fmt.Println(sent, err)
	// Output: 1 <nil>
}

// A program that has its settings from elsewhere, and options of its own. Queue hands over
// with other options where a message needs them.
func ExampleNew() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	s, ctx := settings.Default(), context.Background()
	s.Delivery.Backend = "queue"
	s.Queue.RedisURL, err = settings.NewURL(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	app, err := mailpouch.New(ctx, s, mailpouch.Config{Options: tasks.Options{Queue: "bulk"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = app.Close() }()
	urgent := app.Queue.With(mailpouch.Options(s, tasks.Options{Queue: "critical", IdempotencyKey: "order-17"}))
	id, err := urgent.Enqueue(ctx, &mailer.EmailMessage{Subject: "Your order", Body: "It is on its way.", To: []string{"ann@example.org"}})
	fmt.Println(id != "", err)
	// Output: true <nil>
}

// A relay that takes 14 messages a second and 50,000 a day, over ten connections: all workers on one Redis keep to that together.
func ExampleWorkerConfig_rates() {
	s := settings.Default()
	if err := s.Rates.Messages.UnmarshalText([]byte("14/s, 50000/d")); err != nil { // as EMAIL_RATE
		fmt.Println(err)
		return
	}
	s.Rates.Connections = 10
	cfg, err := mailpouch.WorkerConfig(context.Background(), s, backends.Builtin())
	fmt.Println(cfg.Rates[""].Messages, cfg.Rates[""].Connections, err)
	fmt.Println(s.Rates.Messages.UnmarshalText([]byte("14 a second")))
	// Output:
	// 14/s, 50000/d 10 <nil>
	// "14 a second" is not a rate: write a number, a slash and s, m, h or d, as in 200/s or 30/m burst=5
}
