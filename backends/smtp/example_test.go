package smtp_test

import (
	"context"
	"fmt"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/mailer"
)

func Example() {
	server, err := catcher.Start(catcher.Config{}) // your mail server
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	backend, err := smtp.New(smtp.Config{Addrs: []string{server.Addr()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if _, err := backend.Open(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = backend.Close() }()

	messages := []*mailer.EmailMessage{
		{Subject: "one", FromEmail: "shop@example.com", To: []string{"fred@example.org"}},
		{Subject: "two", FromEmail: "shop@example.com", To: []string{"wilma@example.org"}},
		{Subject: "three", FromEmail: "shop@example.com", To: []string{"not an address"}},
	}
	backend.SendEach(ctx, messages, func(i int, r mailer.Result) {
		fmt.Println(messages[i].Subject, r.Err == nil)
	})
	// Output:
	// three false
	// one true
	// two true
}
