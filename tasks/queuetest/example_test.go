package queuetest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/queuetest"
)

// remind is a part of a web application: it sends a mail in a day, once for each order.
func remind(ctx context.Context, mail *mailer.Mailer, order, to string) (id string, err error) {
	return mail.With(mailer.Options{ProcessIn: 24 * time.Hour, IdempotencyKey: "remind-" + order, Tags: []string{"reminder"}}).
		Enqueue(ctx, &mailer.EmailMessage{Subject: "Order " + order, Body: "Did all arrive?", FromEmail: "shop@example.com", To: []string{to}})
}

// A test of a program that hands its mail over. No Redis runs, and a day passes at once.
func Example() {
	outbox := new(locmem.Outbox)
	queue := queuetest.New(queuetest.Config{
		Connect: func(string) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: outbox}) },
	})
	mail, err := mailer.New(mailer.Config{Connect: queue.Connect})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	for _, order := range []string{"17", "17", "18"} { // one of them twice
		if _, err := remind(ctx, mail, order, "ann@example.org"); err != nil {
			fmt.Println(err)
		}
	}
	for _, task := range queue.Tasks() {
		fmt.Println(task.State, task.Message.Subject, task.Options.Tags)
	}
	_, err = queue.RunDue(ctx, time.Now())
	fmt.Println("at once:", outbox.Len(), err)

	if err := queue.Cancel(ctx, queue.Tasks()[1].ID); err != nil { // order 18
		fmt.Println(err)
	}
	outcomes, err := queue.RunDue(ctx, time.Now().Add(24*time.Hour))
	for _, o := range outcomes {
		fmt.Println("in a day:", o.Action, o.Message.Subject, err)
	}
	fmt.Println(len(outbox.To("ann@example.org")))
	// Output:
	// waiting Order 17 [reminder]
	// waiting Order 18 [reminder]
	// at once: 0 <nil>
	// in a day: sent Order 17 <nil>
	// 1
}
