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
	var queue, mailing string
	c := &cobra.Command{
		Use:   "cancel ID | --mailing NAME",
		Short: "Take a message back, or a whole mailing, that is not on the wire yet",
		Long: `Take a message back that is not on the wire yet, by the ID that send printed.

Exit code 0 says that it was not sent and will not be. 65 says that it is too late
(it is on the wire, was or may have been sent, or is a dead letter), or that there
is no such task: a task is gone when its message was sent, unless it was handed
over with --retention, --unique or --idempotency-key.

With --mailing all messages of a mailing are taken back that are not on the wire,
wherever they wait and whoever has them in hand; how many they were is printed, and
how many it was too late for, of those that Redis still knows of: on the wire, sent or
perhaps sent, or dead letters. 65 says that there is none at all. The mailing is paused meanwhile. If the command is
interrupted it stays paused, and the command can be repeated.`,
		Example: `  id=$(enqueue send --to ann@example.com --subject Reminder --body "Tomorrow!" --process-in 24h)
  enqueue cancel "$id"
  enqueue cancel --queue bulk "$id"
  enqueue cancel --mailing newsletter-july`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && mailing == "":
				return a.cancel(c.Context(), args[0], queue)
			case len(args) == 0 && mailing != "" && queue == "":
				return a.cancelMailing(c.Context(), mailing)
			}
			return cli.Exitf(cli.ExitUsage, "accepts 1 arg, the ID of a message, or --mailing and nothing else: a mailing may be in several queues")
		},
	}
	cli.NameVar(c.Flags(), &mailing, "mailing", "take all messages of the mailing with this `name` back")
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
			return cli.Exit(cli.ExitData, elsewhere(err, queue))
		}
		return err
	}
	fmt.Fprintln(a.std.Out, "cancelled")
	return nil
}

// elsewhere is the error of a message that was looked for. That it is not in the queue of EMAIL_QUEUE is also true of one that is in another,
// as status says, which looks in all.
func elsewhere(err error, queue string) error {
	if queue == "" && errors.Is(err, tasks.ErrNoTask) {
		return fmt.Errorf("%w in the queue of EMAIL_QUEUE (enqueue status says in which it is, and --queue names that)", err)
	}
	return err
}

func (a *app) cancelMailing(ctx context.Context, name string) error {
	if err := (tasks.Options{Mailing: name}).Validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	got, err := a.pouch.Queue.CancelMailing(ctx, name)
	if err != nil {
		return fmt.Errorf("%w; %d cancelled so far", err, got.Cancelled)
	}
	if got == (tasks.CancelledMailing{}) {
		return cli.Exitf(cli.ExitData, "no message of the mailing %s is in the queue: nothing was cancelled", name)
	}
	fmt.Fprintf(a.std.Out, "%d cancelled, %d too late\n", got.Cancelled, got.TooLate)
	return nil
}
