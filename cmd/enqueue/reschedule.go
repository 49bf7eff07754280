package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

func (a *app) rescheduleCommand() *cobra.Command {
	var queue string
	c := &cobra.Command{
		Use:   "reschedule ID TIME",
		Short: "Send a message that waits at another time",
		Long: `Send a message that waits at another time, by the ID that send printed. TIME is
a time such as 2026-12-24T18:00:00Z, or how long from now, such as 90m; 0s means now.

The message is as if it had been handed over with that time: its age counts from
there, and so does its Date if none was given. Exit code 65 says that it is too late
(a worker has it, a try has failed, or it has ended), that the message travels in one
task with others, or that there is no such task.`,
		Example: `  id=$(enqueue send --to ann@example.com --subject Reminder --body "Tomorrow!" --process-in 24h)
  enqueue reschedule "$id" 48h
  enqueue reschedule "$id" 2026-12-24T18:00:00Z`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return a.reschedule(c.Context(), args[0], args[1], queue) },
	}
	c.Flags().StringVar(&queue, "queue", "", "queue that the message was put in (default: EMAIL_QUEUE)")
	return c
}

func (a *app) reschedule(ctx context.Context, id, text, queue string) error {
	o := tasks.Options{Queue: queue}
	if err := o.Validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	at, err := readTime(text, time.Now())
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	if err := a.queue(o).Reschedule(ctx, id, at); err != nil {
		for _, known := range []error{tasks.ErrTooLate, tasks.ErrNoTask, tasks.ErrInBulk} {
			if errors.Is(err, known) {
				return cli.Exit(cli.ExitData, elsewhere(err, queue))
			}
		}
		if mailer.ClassOf(err) == mailer.Permanent {
			return cli.Exit(cli.ExitData, err)
		}
		return err
	}
	fmt.Fprintln(a.std.Out, "rescheduled")
	return nil
}

// readTime reads a time, or how long from now on that is.
func readTime(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	in, err := time.ParseDuration(text)
	if err != nil || in < 0 {
		return time.Time{}, fmt.Errorf("%q is neither a time such as 2026-12-24T18:00:00Z nor how long from now, such as 90m", text)
	}
	return now.Add(in), nil
}
