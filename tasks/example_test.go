package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A program queues its mail, and a worker, most often another process, delivers it.
func Example() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client, err := tasks.Connect(server.URL()) // "redis://localhost:6379/0"
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	// The program.
	queue := tasks.NewQueue(client, tasks.QueueConfig{})
	mail, err := mailer.New(mailer.Config{Connect: queue.Connect})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := mail.SendMail(context.Background(), "Hello", "It works.", "shop@example.com", []string{"ann@example.org"}, nil)
	fmt.Println("queued:", sent, err)

	// The worker. It works until its context ends.
	outbox := new(locmem.Outbox)
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(string) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: outbox}) }, // or smtp.New
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()

	delivered, err := outbox.Wait(ctx, 1)
	fmt.Println("delivered:", delivered[0].Message.Subject, delivered[0].Envelope.To, err)
	stop()
	fmt.Println("worker:", <-ended)
	// Output:
	// queued: 1 <nil>
	// delivered: Hello [ann@example.org] <nil>
	// worker: <nil>
}

// Options say how a message waits: where, until when, and how often it may be tried.
func ExampleQueue_With() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client, err := tasks.Connect(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{Options: tasks.Options{Queue: "bulk"}})
	ctx := context.Background()
	message := &mailer.EmailMessage{Subject: "Your order", FromEmail: "shop@example.com", To: []string{"ann@example.org"}}

	// In an hour, by the queue of what is urgent, with three tries more, and rather not than twice.
	later := queue.With(tasks.Options{Queue: "critical", ProcessIn: time.Hour, MaxRetry: new(3), AtMostOnce: true})
	id, err := later.Enqueue(ctx, message)
	fmt.Println(id != "", err)

	// Once, however often it is handed over.
	once := queue.With(tasks.Options{IdempotencyKey: "order-17"})
	first, err := once.Enqueue(ctx, message)
	fmt.Println(err)
	again, err := once.Enqueue(ctx, message)
	fmt.Println(again == first, err)
	message.Subject = "Another one"
	_, err = once.Enqueue(ctx, message)
	_, used := errors.AsType[*tasks.IdempotencyError](err)
	fmt.Println(used)
	// Output:
	// true <nil>
	// <nil>
	// true <nil>
	// true
}

// A message can be taken back until it is on the wire.
func ExampleQueue_Cancel() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client, err := tasks.Connect(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{Options: tasks.Options{ProcessIn: 24 * time.Hour}})
	ctx := context.Background()
	id, err := queue.Enqueue(ctx, &mailer.EmailMessage{
		Subject: "Reminder", FromEmail: "shop@example.com", To: []string{"ann@example.org"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(queue.Cancel(ctx, id))
	fmt.Println(errors.Is(queue.Cancel(ctx, id), tasks.ErrNoTask))
	// Output:
	// <nil>
	// true
}

// refusing is a relay that knows nobody.
type refusing struct{}

func (refusing) Open(context.Context) (bool, error) { return true, nil }
func (refusing) Close() error                       { return nil }
func (refusing) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	errs := make(mailer.SendErrors, len(messages))
	for i := range errs {
		errs[i] = &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "No such user"}
	}
	return 0, errs
}

// What the relay refuses for good is kept until a person deals with it. An Observer hears of
// each message's fate.
func ExampleDeadLetters() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client, err := tasks.Connect(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	outcomes := make(chan tasks.Outcome, 1)
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect:   func(string) (mailer.Backend, error) { return refusing{}, nil },
		Observers: []tasks.Observer{{Outcome: func(o tasks.Outcome) { outcomes <- o }}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	_, err = tasks.NewQueue(client, tasks.QueueConfig{}).Enqueue(ctx, &mailer.EmailMessage{
		Subject: "Your order", FromEmail: "shop@example.com", To: []string{"gone@example.org"},
	})
	fmt.Println(err)
	o := <-outcomes
	fmt.Println(o.Action, "after try", o.Try)
	stop()
	fmt.Println(<-ended)

	ctx = context.Background()
	dead := tasks.NewDeadLetters(client)
	ids, err := dead.IDs(ctx, "default")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range ids {
		d, err := dead.Get("default", id)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Message.Subject, d.Recipients, d.Reason)
		_, err = dead.Replay(ctx, "default", id) // when the cause is mended
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// dead letter after try 1
	// <nil>
	// Your order [gone@example.org] 550 5.1.1 No such user (RCPT)
	// <nil>
}

// A program is told what becomes of its messages.
func ExampleEvents() {
	server, err := embedded.Start("") // your Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client, err := tasks.Connect(server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// Workers have the same in their WorkerConfig.
	queue := tasks.NewQueue(client, tasks.QueueConfig{Events: tasks.EventLog{On: true}})
	events := tasks.NewEvents(client, tasks.EventsConfig{Group: "shop"})
	if err := events.Begin(ctx); err != nil { // what happens from now on
		fmt.Println(err)
		return
	}
	later := queue.With(tasks.Options{ProcessIn: 24 * time.Hour})
	id, err := later.Enqueue(ctx, &mailer.EmailMessage{
		Subject: "Reminder", FromEmail: "shop@example.com", To: []string{"ann@example.org", "bob@example.org"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(queue.Cancel(ctx, id))

	left := 4
	err = events.Run(ctx, func(_ context.Context, list []tasks.Event) error {
		for _, e := range list {
			fmt.Println(e.Type, e.Recipient, e.EmailID == id)
			if left--; left == 0 {
				cancel() // a real program goes on
			}
		}
		return nil // an error brings the same events again
	})
	fmt.Println(err)
	// Output:
	// <nil>
	// email.queued ann@example.org true
	// email.queued bob@example.org true
	// email.cancelled ann@example.org true
	// email.cancelled bob@example.org true
	// <nil>
}
