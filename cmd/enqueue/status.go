package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/tasks"
)

// The exit codes of status beside 0, which says that the message was sent, or had nobody to be sent to.
const (
	exitUnknown = cli.ExitNone     // no message is found
	exitNotSent = cli.ExitData     // it has ended, and was not sent
	exitNotYet  = cli.ExitTempFail // it has not ended
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status ID|MESSAGE-ID",
		Short: "Where a message is, or what became of it",
		Long: `Where a message is, or what became of it, by the ID that send printed, the ID of one
message of bulk mail or of the task that it shares with others, or its Message-ID.

What waits is read from the queue. What has ended is remembered by the workers for
EMAIL_HISTORY (72h), and no longer than EMAIL_HISTORY_SIZE has room.

Exit code 0 says that it was sent (the mail server has accepted it), or had no
recipients. 75 says that it has not ended: it waits, is scheduled or paused, is to
be tried again, or a worker has it. 65 says that it has ended and was not sent: it is a dead
letter, or was cancelled, deleted, or has failed silently. 1 says that no such
message is known.`,
		Example: `  id=$(enqueue send --to ann@example.com --subject Reminder --body "Tomorrow!")
  enqueue status "$id"
  enqueue status --json "<20261126.4711@shop.example>"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.status(c.Context(), args[0], asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return c
}

func (a *app) status(ctx context.Context, id string, asJSON bool) error {
	if strings.TrimSpace(id) == "" { // a script's variable has nothing in it
		return cli.Exitf(cli.ExitUsage, "an ID or a Message-ID is expected")
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	s, err := a.queue(tasks.Options{}).Status(ctx, id)
	if err != nil {
		return err
	}
	if asJSON {
		err = lineEncoder(a.std.Out).Encode(s)
	} else if s.State != tasks.StateUnknown {
		err = a.printStatus(s)
	}
	if err != nil {
		return err
	}
	code := statusCode(s)
	switch {
	case code == 0:
		return nil
	case code == exitUnknown && !asJSON:
		return cli.Exitf(code, "%s: %s", id, unknown(s.Kept, s.Since))
	}
	return cli.Exit(code, cli.Reported(errors.New(string(s.State))))
}

// statusCode is the exit code that says what became of a message, or of those of a task.
func statusCode(s tasks.Status) int {
	switch s.State {
	case tasks.StateSent, tasks.StateSkipped:
		return 0
	case tasks.StateUnknown:
		return exitUnknown
	case tasks.StateReplayed:
		for _, p := range s.Parts {
			if p.ID == s.Reply {
				return statusCode(p)
			}
		}
	case tasks.StateSeveral:
		worst := 0
		for _, p := range s.Parts {
			if code := statusCode(p); code == exitNotYet || code == exitNotSent && worst == 0 {
				worst = code
			}
		}
		return worst
	default:
	}
	if s.State.Ended() {
		return exitNotSent
	}
	return exitNotYet
}

// unknown says what it means that nothing is found.
func unknown(kept time.Duration, since time.Time) string {
	if kept == 0 {
		return "no such message is in the queue, and what has ended is not remembered: no worker has run here yet, or EMAIL_HISTORY is 0"
	}
	return fmt.Sprintf("no such message is in the queue, and none has ended since %s (EMAIL_HISTORY is %dh)", local(since), int(kept.Hours()))
}

func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// printStatus prints what is known of a message, and in a line each what is known of its parts.
func (a *app) printStatus(s tasks.Status) error {
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, cli.Line(value))
		}
	}
	line("state", string(s.State))
	if !s.At.IsZero() {
		line("at", local(s.At))
	}
	if !s.Due.IsZero() {
		line("due", local(s.Due))
	}
	switch s.State {
	case tasks.StateSent:
		line("reply", s.Reply)
	case tasks.StateReplayed:
		line("as", s.Reply)
	default:
		line("reason", s.Reply)
	}
	if s.Tries > 0 {
		line("tries", fmt.Sprint(s.Tries))
	}
	line("id", s.ID)
	line("message_id", s.MessageID)
	line("queue", s.Queue)
	line("mailer", s.Mailer)
	line("sent with", s.Member)
	line("mailing", s.Mailing)
	line("tags", strings.Join(s.Tags, ", "))
	line("to", recipients(s))
	if err := t.Flush(); err != nil || len(s.Parts) == 0 {
		return err
	}
	fmt.Fprintln(a.std.Out)
	return a.printStatuses(s.Parts)
}

// recipients are the first recipients of a message, masked, and how many more there are.
func recipients(s tasks.Status) string {
	to := strings.Join(s.To, ", ")
	if more := s.Recipients - len(s.To); more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	return to
}

// printStatuses prints a line for each message.
func (a *app) printStatuses(list []tasks.Status) error {
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	for _, s := range list {
		at := s.At
		if at.IsZero() {
			at = s.Due
		}
		when := "-"
		if !at.IsZero() {
			when = local(at)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", cli.Line(s.ID), when, s.State, cli.Line(cmp.Or(recipients(s), "-")), cli.Line(s.Reply))
	}
	return t.Flush()
}

func (a *app) historyCommand() *cobra.Command {
	var s tasks.Search
	var since string
	var asJSON bool
	c := &cobra.Command{
		Use:   "history --to ADDRESS | --tag TAG | --mailing NAME",
		Short: "The messages to a recipient, with a tag or of a mailing, and what became of them",
		Long: `The messages to a recipient, with a tag or of a mailing, and what became of them: what
has not ended first, then the newest first, a line each. A recipient is found by the
whole address alone, in any letter case: the history has no addresses, but what can
be made of one that is known.

Exit code 1 says that there are none.`,
		Example: `  enqueue history --to ann@example.com
  enqueue history --mailing spring-2026 --since 24h --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.history(c.Context(), s, since, asJSON) },
	}
	cli.NameVar(c.Flags(), &s.To, "to", "messages to this `address`")
	cli.NameVar(c.Flags(), &s.Tag, "tag", "messages with this `tag`")
	cli.NameVar(c.Flags(), &s.Mailing, "mailing", "messages of this mailing, by its `name`")
	cli.NameVar(c.Flags(), &since, "since", "that have ended after this `time`, day (2026-11-26), or so long ago (36h, 7d) or less")
	c.Flags().IntVar(&s.Limit, "limit", 100, "how many, the newest")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return c
}

func (a *app) history(ctx context.Context, s tasks.Search, since string, asJSON bool) error {
	if s.To == "" && s.Tag == "" && s.Mailing == "" {
		return cli.Exitf(cli.ExitUsage, "one of --to, --tag and --mailing is expected")
	}
	if s.Limit < 1 {
		return cli.Exitf(cli.ExitUsage, "--limit: a number from 1 on is expected")
	}
	if since != "" {
		var f tasks.Filter
		if err := f.Set("since", since, time.Now()); err != nil {
			return cli.Exitf(cli.ExitUsage, "--%w", err)
		}
		s.Since = f.Since
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	found, err := a.queue(tasks.Options{}).History(ctx, s)
	switch {
	case err != nil:
		return err
	case len(found.Messages) == 0:
		return cli.Exitf(exitUnknown, "%s", unknown(found.Kept, found.Since))
	case asJSON:
		err = eachJSON(a.std.Out, found.Messages)
	default:
		err = a.printStatuses(found.Messages)
	}
	if err == nil && found.More {
		fmt.Fprintf(a.std.Err, "there are more than these %d: --limit and --since choose\n", len(found.Messages))
	}
	return err
}

func eachJSON(w io.Writer, list []tasks.Status) error {
	encoder := lineEncoder(w)
	for _, s := range list {
		if err := encoder.Encode(s); err != nil {
			return err
		}
	}
	return nil
}
