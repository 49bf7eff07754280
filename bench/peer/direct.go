package main

import (
	"context"
	"sync"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/mailer"
)

// direct sends mails over the connections with our own SMTP client, in batches as a
// worker does, to show the speed without a queue. Then it waits to be killed, so that its
// processor time can still be read.
func direct(ctx context.Context, o options) error {
	errs := make([]error, o.connections)
	var sending sync.WaitGroup
	for i := range o.connections {
		sending.Go(func() { errs[i] = sendMany(ctx, o.smtp, o.mails/o.connections) })
	}
	sending.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// batchSize is how many messages a connection gets at once, as in a worker.
const batchSize = 100

func sendMany(ctx context.Context, addr string, n int) error {
	backend, err := smtp.New(smtp.Config{Addrs: []string{addr}, Hostname: "peer.example"})
	if err != nil {
		return err
	}
	defer func() { _ = backend.Close() }()
	if _, err := backend.Open(ctx); err != nil {
		return err
	}
	batch := make([]*mailer.EmailMessage, batchSize)
	for i := range batch {
		m := &mailer.EmailMessage{Subject: baseline.Subject, FromEmail: baseline.Sender, To: []string{baseline.Recipient(i)}, Body: baseline.Body(i)}
		batch[i] = m.WithDefaults(mailer.Defaults{Hostname: "peer.example"})
	}
	for left := n; left > 0; left -= batchSize {
		if _, err := backend.SendMessages(ctx, batch[:min(left, batchSize)]); err != nil {
			return err
		}
	}
	return nil
}
