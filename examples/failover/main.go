// Command failover sends a mail with the first of two relays that takes it. Which ones there are the environment says:
//
//	export EMAIL_BACKEND=failover EMAIL_MEMBERS=ses,postmark EMAIL_MAILERS=ses,postmark
//	export EMAIL_SES_URL=smtp+starttls://user:password@email-smtp.eu-west-1.amazonaws.com
//	export EMAIL_POSTMARK_URL=smtp+starttls://user:password@smtp.postmarkapp.com
//	go run ./examples/failover ann@example.com
//
// A program that leaves its mail to a worker needs nothing of this: the worker has EMAIL_QUEUE_BACKEND=failover and the same members.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/settings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, to []string, out io.Writer) error {
	if len(to) == 0 {
		return errors.New("nobody to send to: give addresses")
	}
	s, warnings, err := settings.Load()
	for _, w := range warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	if err != nil {
		return err
	}
	mail, err := backends.Builtin().Mailer(s)
	if err != nil {
		return err
	}
	sent, err := mail.SendMail(ctx, "Hello", "One of two relays has taken this.", "", to, nil)
	if err != nil {
		return err // of each relay what it has said
	}
	fmt.Fprintln(out, sent, "sent")
	return nil
}
