package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/tasks"
)

// addTargetFlags gives a command the flags that say what is paused.
func addTargetFlags(c *cobra.Command, t *tasks.PauseTarget) {
	cli.NameVar(c.Flags(), &t.Queue, "queue", "this queue, of all mailers unless --mailer names one")
	cli.NameVar(c.Flags(), &t.Mailer, "mailer", "all queues of the mailer with this `name`; default is the one without a name")
	cli.NameVar(c.Flags(), &t.Mailing, "mailing", "the mailing with this `name`, in all queues")
}

func (a *app) pauseCommand() *cobra.Command {
	var p tasks.Pause
	c := &cobra.Command{
		Use:   "pause --queue NAME | --mailer NAME | --mailing NAME",
		Short: "Send nothing of a queue, a mailer or a mailing until it is resumed",
		Long: `Send nothing of a queue, a mailer or a mailing until it is resumed, for all workers and
within a second: what they have in hand and not on the wire goes back, and costs no try.
Programs can go on queueing. Deadlines and EMAIL_MAX_AGE go on too: what expires becomes
a dead letter.

A queue is paused with all its parts, those for bulk mail too. The messages of a paused
mailing wait among the scheduled ones.`,
		Example: `  enqueue pause --queue bulk --reason "complaints"
  enqueue pause --mailer marketing
  enqueue pause --mailing newsletter-july`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.pause(c.Context(), p) },
	}
	addTargetFlags(c, &p.Target)
	c.Flags().StringVar(&p.Reason, "reason", "", "`text` that the list of pauses shows")
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	var t tasks.PauseTarget
	c := &cobra.Command{
		Use:   "resume --queue NAME | --mailer NAME | --mailing NAME",
		Short: "Go on with what was paused",
		Long: `Go on with what was paused, in the order in which it was queued. What another pause covers
goes on waiting: a queue whose mailer is paused too. Exit code 65 says that it was not paused.`,
		Example: `  enqueue resume --queue bulk
  enqueue resume --mailing newsletter-july`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.resume(c.Context(), t) },
	}
	addTargetFlags(c, &t)
	return c
}

func (a *app) pausedCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "paused",
		Short:   "Print what is paused, since when, by whom and why",
		Example: "  enqueue paused",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.paused(c.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each")
	return c
}

func (a *app) pause(ctx context.Context, p tasks.Pause) error {
	if err := p.Validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	before, err := tasks.NewPauses(a.pouch.Redis).Pause(ctx, p)
	switch {
	case errors.As(err, new(*tasks.UnknownTargetError)):
		return cli.Exit(cli.ExitData, err)
	case err != nil:
		return err
	case before != nil:
		fmt.Fprintf(a.std.Out, "%s is paused since %s, by %s\n", p.Target, before.At.Local().Format(time.DateTime), cli.Line(before.By))
		return nil
	}
	fmt.Fprintf(a.std.Out, "paused: %s\n", p.Target)
	return nil
}

func (a *app) resume(ctx context.Context, t tasks.PauseTarget) error {
	if err := t.Validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	p := tasks.NewPauses(a.pouch.Redis)
	ended, err := p.Resume(ctx, t)
	if err != nil {
		return err
	}
	if !ended {
		return cli.Exitf(cli.ExitData, "%s is not paused: see enqueue paused", t)
	}
	fmt.Fprintf(a.std.Out, "resumed: %s\n", t)
	return nil
}

func (a *app) paused(ctx context.Context, asJSON bool) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	list, err := tasks.NewPauses(a.pouch.Redis).List(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		out := lineEncoder(a.std.Out)
		for _, p := range list {
			if err := out.Encode(p); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintln(a.std.Err, "nothing is paused")
		return nil
	}
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tSINCE\tBY\tREASON")
	for _, p := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Target, p.At.Local().Format(time.DateTime), cli.Line(p.By), cmp.Or(cli.Line(p.Reason), "-"))
	}
	return t.Flush()
}
