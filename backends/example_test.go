package backends_test

import (
	"context"
	"fmt"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// The environment decides where the mail of a program goes: EMAIL_BACKEND is smtp, console,
// ... or queue, which is added here and leaves it to a worker.
func Example() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	s, ctx := settings.Default(), context.Background() // settings.Load() in a program, and in its environment:
	s.Delivery.Backend = "queue"                       // EMAIL_BACKEND=queue
	s.Queue.RedisURL, err = settings.NewURL(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}

	s.Message.Hostname = backends.Hostname(ctx, s) // in Message-ID; asks the DNS once
	client, err := tasks.Connect(s.Queue.RedisURL.Reveal())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{
		Defaults: backends.Defaults(s), Mailers: s.Mailers(), TaskTimeout: s.Queue.TaskTimeout,
		AttachmentThreshold: s.Queue.AttachmentThreshold.OrNever(), MaxMessageSize: int(s.Queue.MaxMessageSize),
		IdempotencyWindow: s.Queue.IdempotencyWindow, MassSize: s.Queue.MassSize, Shards: s.Queue.Shards,
		Options: tasks.Options{Queue: s.Queue.Name, MaxRetry: &s.Queue.MaxRetry},
	})
	registry := backends.Builtin()
	registry["queue"] = func(s settings.Settings) (mailer.Backend, error) { return queue.Using(s.Using) }
	mail, err := registry.Mailer(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := mail.SendMail(ctx, "Hello", "It works.", "", []string{"ann@example.org"}, nil)
	fmt.Println(sent, err)
	// Output: 1 <nil>
}

// A test puts an outbox in the place of the real backend and leaves the rest as it is.
func ExampleRegistry_Mailer() {
	outbox := new(locmem.Outbox)
	registry := backends.Builtin()
	registry["locmem"] = func(s settings.Settings) (mailer.Backend, error) {
		return locmem.New(locmem.Config{Outbox: outbox, Defaults: backends.Defaults(s)})
	}
	s := settings.Default()
	s.Delivery.Backend = "locmem"
	s.Message.Admins = settings.Addresses{"Ann <ann@example.com>"}
	mail, err := registry.Mailer(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := mail.MailAdmins(context.Background(), "Disk full", "Only 1 % is left.", nil); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range outbox.Messages() {
		fmt.Println(m.Envelope.From, m.Envelope.To, m.Message.Subject)
	}
	// Output: root@localhost [ann@example.com] [Django] Disk full
}

// A backend is opened by its name, and a name that is not there is told with the nearest one.
func ExampleRegistry_New() {
	registry, s := backends.Builtin(), settings.Default()
	backend, err := registry.New("dummy", s)
	fmt.Printf("%T %v\n", backend, err)
	backend, err = registry.New("django.core.mail.backends.console.EmailBackend", s)
	fmt.Printf("%T %v\n", backend, err)
	_, err = registry.New("smpt", s)
	fmt.Println(err)
	// Output:
	// *dummy.Backend <nil>
	// *console.Backend <nil>
	// backends: no backend is named "smpt"; did you mean smtp? (there are console, dummy, filebased, locmem, smtp)
}
