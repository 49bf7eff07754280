package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/tasks"
)

func (a *app) cancelCommand() *cobra.Command {
	var queue string
	c := &cobra.Command{
		Use:   "cancel ID",
		Short: "Take a message back that is not on the wire yet",
		Long: `Take a message back that is not on the wire yet, by the ID that send printed.

Exit code 0 says that it was not sent and will not be. 65 says that it is too late
(it is on the wire, was or may have been sent, or is a dead letter), or that there
is no such task: a task is gone when its message was sent, unless it was handed
over with --retention, --unique or --idempotency-key.`,
		Example: `  id=$(enqueue send --to ann@example.com --subject Reminder --body "Tomorrow!" --process-in 24h)
  enqueue cancel "$id"
  enqueue cancel --queue bulk "$id"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.cancel(c.Context(), args[0], queue) },
	}
	c.Flags().StringVar(&queue, "queue", "", "queue that the message was put in (default: EMAIL_QUEUE)")
	return c
}

func (a *app) cancel(ctx context.Context, id, queue string) error {
	o := tasks.Options{Queue: queue}
	if err := o.Validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	if err := a.queue(o).Cancel(ctx, id); err != nil {
		if errors.Is(err, tasks.ErrTooLate) || errors.Is(err, tasks.ErrNoTask) {
			return cli.Exit(cli.ExitData, err)
		}
		return err
	}
	fmt.Fprintln(a.std.Out, "cancelled")
	return nil
}
