package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
)

func (a *app) testCommand() *cobra.Command {
	var admins, managers bool
	var o options
	c := &cobra.Command{
		Use:   "test [ADDRESS...]",
		Short: "Queue a test message, as Django's sendtestemail does",
		Example: `  enqueue test ann@example.com
  enqueue test --admins --managers`,
		RunE: func(c *cobra.Command, args []string) error { return a.test(c.Context(), args, admins, managers, o) },
	}
	c.Flags().BoolVar(&admins, "admins", false, "send one to ADMINS")
	c.Flags().BoolVar(&managers, "managers", false, "send one to MANAGERS")
	o.addFlags(c)
	return c
}

const testBody = "If you're reading this, it was successful."

func (a *app) test(ctx context.Context, addresses []string, admins, managers bool, o options) error {
	if len(addresses) == 0 && !admins && !managers {
		return cli.Exitf(cli.ExitUsage, "give an address, --admins or --managers")
	}
	queueOptions, err := o.read()
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	m := a.pouch.Mailer.With(queueOptions)
	host, _ := os.Hostname()
	subject := fmt.Sprintf("Test email from %s on %s", host, time.Now().Format(time.RFC3339))
	sent := 0
	for _, step := range []struct {
		chosen bool
		send   func() (int, error)
	}{
		{len(addresses) > 0, func() (int, error) { return m.SendMail(ctx, subject, testBody, "", addresses, nil) }},
		{managers, func() (int, error) { return m.MailManagers(ctx, subject, testBody, nil) }},
		{admins, func() (int, error) { return m.MailAdmins(ctx, subject, testBody, nil) }},
	} {
		if !step.chosen {
			continue
		}
		n, err := step.send()
		if err != nil {
			return err
		}
		sent += n
	}
	if sent == 0 {
		return cli.Exitf(cli.ExitConfig, "nobody to send to: ADMINS and MANAGERS are empty")
	}
	fmt.Fprintf(a.std.Out, "%d queued\n", sent)
	return nil
}
