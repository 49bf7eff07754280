package smtp_test

import (
	"context"
	"fmt"
	"time"

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
	backend.SendBatch(ctx, mailer.Batch{Messages: messages, Report: func(group []mailer.Report) {
		for _, r := range group {
			fmt.Println(messages[r.Index].Subject, r.Err == nil)
		}
	}})
	// Output:
	// three false
	// one true
	// two true
}

// A provider's server: TLS and a login. What prints a Config prints no password.
func ExampleConfig() {
	cfg := smtp.Config{
		Addrs:    []string{"smtp.example.com", "backup.example.com:2525"}, // port 587, for TLSStart
		TLS:      smtp.TLSStart,
		Username: "shop",
		Password: "SECRET",
		Chunking: smtp.Auto, // it is far away
	}
	backend, err := smtp.New(cfg) // opens no connection yet
	fmt.Println(backend != nil, err)
	fmt.Println(cfg)

	cfg.DataTimeout = -time.Minute
	_, err = smtp.New(cfg)
	fmt.Println(err)
	// Output:
	// true <nil>
	// smtp://shop@smtp.example.com,backup.example.com:2525
	// smtp: config: DataTimeout must not be negative
}

// Hooks are told of each connection and of each message.
func ExampleHooks() {
	server, err := catcher.Start(catcher.Config{}) // your mail server
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	backend, err := smtp.New(smtp.Config{Addrs: []string{server.Addr()}, Hooks: &smtp.Hooks{
		Connected: func(_ context.Context, c smtp.Connected) {
			fmt.Println("connected:", c.Err == nil, "TLS:", c.Conn.TLS != "", "measured:", c.Dial > 0)
		},
		Settled: func(_ context.Context, s *smtp.Settled) {
			fmt.Println("settled:", s.MessageID, s.Way, "accepted:", s.Result.Err == nil, "measured:", s.Steps.End > 0)
		},
		Closed: func(c smtp.Closed) { fmt.Println("closed:", c.Reason, "after", c.Messages, "messages") },
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = backend.SendMessages(context.Background(), []*mailer.EmailMessage{
		{Subject: "one", FromEmail: "shop@example.com", To: []string{"fred@example.org"}, MessageID: "<1@shop.example.com>"},
		{Subject: "two", FromEmail: "shop@example.com", To: []string{"wilma@example.org"}, MessageID: "<2@shop.example.com>"},
	})
	fmt.Println(err)
	// Output:
	// connected: true TLS: false measured: true
	// settled: <1@shop.example.com> pipelined accepted: true measured: true
	// settled: <2@shop.example.com> pipelined accepted: true measured: true
	// closed: done after 2 messages
	// <nil>
}
