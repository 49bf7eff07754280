package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// deadCommands are the commands about dead letters.
const deadCommands = "list, summary, show, replay, delete, export and count"

func (a *app) deadCommand() *cobra.Command {
	dead := &cobra.Command{
		Use:   "dead",
		Short: "Dead letters: messages that could not be delivered",
		Long: `Dead letters: messages, or some of their recipients, that could not be delivered
and will not be tried again by themselves. They stay until they are replayed or
deleted.

An ID may be given by its beginning, of four characters or more, as long as that is
the beginning of one alone. Filters (--reason, --to, --since, ...) choose among the
letters; of several all have to hold. Where show, replay or delete find no letter
that is meant, they say so and exit with code 1.`,
		Example: `  enqueue dead summary --since 24h
  enqueue dead list --to @example.org
  enqueue dead show VQK2X7
  enqueue dead replay --reason "mailbox full" --dry-run
  enqueue dead export > dead.jsonl`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Exitf(cli.ExitUsage, "unknown command %q for \"enqueue dead\": %s are there", args[0], deadCommands)
			}
			fmt.Fprint(a.std.Err, c.UsageString())
			return cli.Exitf(cli.ExitUsage, "a command is expected: %s", strings.Replace(deadCommands, " and ", " or ", 1))
		},
	}
	dead.AddCommand(
		a.deadListCommand(), a.deadSummaryCommand(), a.deadShowCommand(),
		a.deadChangeCommand("replay", "Queue them anew, as if handed over now", "queued again", replay),
		a.deadChangeCommand("delete", "Delete them for good", "deleted", (*tasks.DeadLetters).Delete),
		a.deadExportCommand(), a.deadCountCommand(),
	)
	return dead
}

// deadSubcommand makes a command about selected dead letters. With everything, no selection
// means all of them.
func (a *app) deadSubcommand(name, short string, everything bool, work func(context.Context, *tasks.DeadLetters, letters) error) *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use: name + " [ID...]", Short: short,
		Example: fmt.Sprintf("  enqueue dead %[1]s VQK2X7\n  enqueue dead %[1]s --queue bulk --all\n  enqueue dead %[1]s --reason 550 --since 7d", name),
		RunE: func(c *cobra.Command, args []string) error {
			s.ids = args
			s.all = s.all || everything && len(args) == 0
			return a.dead(c.Context(), s, work)
		},
	}
	s.flags(c)
	all := "all of them"
	if everything {
		all += ", as if nothing were named"
	}
	c.Flags().BoolVar(&s.all, "all", false, all)
	return c
}

func (a *app) deadListCommand() *cobra.Command {
	var asJSON bool
	c := a.deadSubcommand("list", "Print a line for each", true, func(_ context.Context, _ *tasks.DeadLetters, found letters) error {
		if asJSON {
			return a.deadListJSON(found)
		}
		return a.deadList(found)
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line, without bodies and attachments")
	return c
}

func (a *app) deadShowCommand() *cobra.Command {
	var asJSON bool
	c := a.deadSubcommand("show", "Print the reason, all tries and the whole message", false, func(_ context.Context, d *tasks.DeadLetters, found letters) error {
		n := 0
		show := a.deadShow
		if asJSON {
			show = a.exportLine()
		}
		err := eachWhole(d, found, func(l *tasks.DeadLetter) error {
			n++
			return show(l)
		})
		return cmp.Or(err, a.unlessAny(n, "nothing to be shown"))
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return c
}

// deadChangeCommand makes a command that does something to each letter.
func (a *app) deadChangeCommand(name, short, done string, work func(d *tasks.DeadLetters, ctx context.Context, queue, id string) error) *cobra.Command {
	var dryRun bool
	c := a.deadSubcommand(name, short, false, func(ctx context.Context, d *tasks.DeadLetters, found letters) error {
		if dryRun {
			return a.dryRun(found, done)
		}
		n, err := a.each(found, done, func(l *tasks.DeadLetter) error { return work(d, ctx, l.Queue, l.ID) })
		return cmp.Or(err, a.unlessAny(n, "nothing was "+done))
	})
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say how many it would be, and list them, and change nothing")
	return c
}

func replay(d *tasks.DeadLetters, ctx context.Context, queue, id string) error { //nolint:revive // as a method expression has it
	_, err := d.Replay(ctx, queue, id)
	return err
}

// dryRun says what would be done to which letters.
func (a *app) dryRun(found letters, done string) error {
	n := 0
	err := a.deadList(letters{all: func(yield func(*tasks.DeadLetter, error) bool) {
		for l, err := range found.all {
			if n++; !yield(l, err) {
				return
			}
		}
	}})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.std.Out, "%d would be %s\n", n, done)
	return a.unlessAny(n, "nothing would be "+done)
}

// unlessAny is the error of a command that has found no letter.
func (a *app) unlessAny(n int, but string) error {
	if n > 0 {
		return nil
	}
	return cli.Exitf(cli.ExitNone, "no dead letter is meant: %s", but)
}

func (a *app) deadSummaryCommand() *cobra.Command {
	var asJSON bool
	var s selection
	c := &cobra.Command{
		Use: "summary", Short: "Print how many there are of each reason",
		Long: `Print how many there are of each reason, the most frequent one first. Reasons that
differ only in addresses, numbers and how often was tried are one.`,
		Example: "  enqueue dead summary\n  enqueue dead summary --queue bulk --since 24h\n  enqueue dead summary --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := s.read(time.Now()); err != nil {
				return err
			}
			return a.deadSummary(c.Context(), s.filter, asJSON)
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return c
}

func (a *app) deadSummary(ctx context.Context, f tasks.Filter, asJSON bool) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	d := tasks.NewDeadLetters(a.pouch.Redis)
	if _, err := a.deadQueues(d, f); err != nil {
		return err
	}
	found, err := d.Survey(ctx, f, 0)
	if err != nil {
		return err
	}
	if asJSON {
		for _, g := range found.Groups {
			if err := lineEncoder(a.std.Out).Encode(g); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "COUNT\tNEWEST\tREASON")
	for _, g := range found.Groups {
		fmt.Fprintf(t, "%d\t%s\t%s\n", g.Count, g.Newest.Format(time.DateTime), cli.Line(g.Group))
	}
	if found.Others > 0 {
		fmt.Fprintf(t, "%d\t\t(other reasons)\n", found.Others)
	}
	fmt.Fprintf(t, "%d\t\tin all\n", found.Total)
	return t.Flush()
}

// lineEncoder returns an encoder of JSON lines for programs.
func lineEncoder(w io.Writer) *json.Encoder {
	out := json.NewEncoder(cli.Shown(w))
	out.SetEscapeHTML(false) // it is no web page
	return out
}

func (a *app) deadExportCommand() *cobra.Command {
	var dir string
	c := a.deadSubcommand("export", "Print them as JSON lines, or write them as .eml files", true,
		func(_ context.Context, d *tasks.DeadLetters, found letters) error {
			if dir != "" {
				return a.exportFiles(dir, d, found)
			}
			return eachWhole(d, found, a.exportLine())
		})
	c.Flags().StringVar(&dir, "eml", "", "write each as a file ID.eml in this `directory` instead")
	return c
}

func (a *app) deadCountCommand() *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use: "count", Short: "Print how many there are: the number to alarm on",
		Example: "  enqueue dead count\n  enqueue dead count --queue bulk",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			chooses, err := s.read(time.Now())
			if err != nil {
				return err
			}
			return a.deadCount(c.Context(), s.filter, chooses)
		},
	}
	s.flags(c)
	return c
}

// deadCount prints a number. Unless the letters have to be read for that, it takes the same short time however many there are.
func (a *app) deadCount(ctx context.Context, f tasks.Filter, chooses bool) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	d := tasks.NewDeadLetters(a.pouch.Redis)
	queues, err := a.deadQueues(d, f)
	if err != nil {
		return err
	}
	sum, err := count(ctx, d, queues)
	if chooses && err == nil {
		var found tasks.Survey
		found, err = d.Survey(ctx, f, 0)
		sum = found.Total
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.std.Out, sum)
	return nil
}

// aligned is how many lines of a list are in memory, and share the widths of their columns.
const aligned = 1000

func (a *app) deadList(found letters) error {
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tQUEUE\tWHEN\tTRIES\tTO\tSUBJECT\tREASON")
	lines := 0
	for l, err := range found.all {
		if err != nil {
			return errors.Join(t.Flush(), err)
		}
		subject := l.Subject()
		switch {
		case l.Message == nil && l.Messages == 0:
			subject = "(cannot be read)"
		case l.Messages > 0:
			subject = fmt.Sprintf("(%d messages of bulk mail)", l.Messages)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", cli.Line(l.ID), cli.Line(l.Queue), l.At.Format(time.DateTime), l.Tries,
			shorten(strings.Join(l.Recipients, ","), 40), shorten(subject, 40), shorten(l.Reason, 100))
		if lines++; lines%aligned == 0 {
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

// shorten makes a text fit a line of a table.
func shorten(s string, n int) string { return redact.Cut(cli.Line(s), n-1) }

// listed is a line of list --json.
type listed struct {
	ID         string    `json:"id"`
	Queue      string    `json:"queue"`
	Mailer     string    `json:"mailer,omitempty"`
	Reason     string    `json:"reason"`
	Tries      int       `json:"tries"`
	At         time.Time `json:"at"`
	Recipients []string  `json:"recipients"`
	Subject    string    `json:"subject"`
	MessageID  string    `json:"message_id,omitempty"`
	Messages   int       `json:"messages,omitempty"` // of a task of bulk mail
	Tags       []string  `json:"tags,omitempty"`
	Mailing    string    `json:"mailing,omitempty"`
}

func (a *app) deadListJSON(found letters) error {
	out := lineEncoder(a.std.Out)
	for l, err := range found.all {
		if err != nil {
			return err
		}
		line := listed{
			l.ID, l.Queue, l.Mailer(), l.Reason, l.Tries, l.At, l.Recipients, l.Subject(), "", l.Messages, l.Tags, l.Mailing,
		}
		if l.Message != nil {
			line.MessageID = l.Message.MessageID
		}
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) deadShow(l *tasks.DeadLetter) error {
	out := cli.Shown(a.std.Out)
	fmt.Fprintf(out, "id: %s\nqueue: %s\nwhen: %s\ntries: %d\nnot delivered to: %s\nreason: %s\n",
		cli.Line(l.ID), cli.Line(l.Queue), l.At.Format(time.RFC3339), l.Tries, cli.Line(strings.Join(l.Recipients, ", ")), cli.Line(l.Reason))
	if len(l.Tags) > 0 {
		fmt.Fprintf(out, "tags: %s\n", cli.Line(strings.Join(l.Tags, ", ")))
	}
	if l.Mailing != "" {
		fmt.Fprintf(out, "mailing: %s\n", cli.Line(l.Mailing))
	}
	for _, t := range l.History[:max(len(l.History)-1, 0)] { // the last one is said
		fmt.Fprintf(out, "try %d: %s: %s\n", t.Number, t.At.Format(time.RFC3339), cli.Line(t.Reason))
	}
	for _, missing := range l.Missing {
		fmt.Fprintf(out, "missing: %s\n", cli.Line(missing))
	}
	fmt.Fprintln(out)
	if err := writeLetter(out, l); err != nil {
		fmt.Fprintf(out, "(%s)\n%s\n", cli.Line(err.Error()), l.Payload)
	}
	fmt.Fprintln(out)
	return nil
}

// eachWhole calls work with every dead letter, its big attachments included. Only one
// letter is in memory at a time. A letter that was replayed meanwhile is left out.
func eachWhole(d *tasks.DeadLetters, found letters, work func(*tasks.DeadLetter) error) error {
	for l, err := range found.all {
		if err != nil {
			return err
		}
		whole, err := d.Get(l.Queue, l.ID)
		if errors.Is(err, tasks.ErrNotDead) {
			continue
		}
		if err != nil {
			return err
		}
		if err := work(whole); err != nil {
			return err
		}
	}
	return nil
}

// writeLetter writes the message as it would have been sent.
func writeLetter(w io.Writer, l *tasks.DeadLetter) error {
	if l.Message == nil {
		return errors.New("the task holds no message that can be read")
	}
	_, err := l.Message.WriteTo(w)
	return err
}

// each calls work with every letter. It prints the error of a letter and goes on with the
// others, unless Redis is unavailable. What somebody else has replayed or deleted meanwhile does
// not count.
// It returns how many there were.
func (a *app) each(found letters, done string, work func(*tasks.DeadLetter) error) (all int, err error) {
	bar := cli.NewBar(a.std.Err, found.most, done)
	failed, gone := 0, 0
	for l, err := range found.all {
		if err != nil {
			return all, err
		}
		all++
		err := work(l)
		if err != nil && mailer.ClassOf(err) == mailer.Unavailable {
			return all, err
		}
		if errors.Is(err, tasks.ErrNotDead) {
			gone++
		} else if err != nil {
			failed++
			fmt.Fprintf(a.std.Err, "enqueue: %s: %s\n", cli.Line(l.ID), cli.Line(err.Error()))
		}
		bar.Add(1)
	}
	bar.Finish()
	fmt.Fprintf(a.std.Out, "%d %s\n", all-failed-gone, done)
	if gone > 0 {
		fmt.Fprintf(a.std.Err, "enqueue: %d were replayed or deleted by somebody else meanwhile\n", gone)
	}
	if failed > 0 {
		return all, cli.Exitf(cli.ExitData, "%d could not be %s", failed, done)
	}
	return all, nil
}

// exported is a line of export.
type exported struct {
	ID         string               `json:"id"`
	Queue      string               `json:"queue"`
	Reason     string               `json:"reason"`
	Tries      int                  `json:"tries"`
	At         time.Time            `json:"at"`
	Recipients []string             `json:"recipients"`
	Tags       []string             `json:"tags,omitempty"`
	Mailing    string               `json:"mailing,omitempty"`
	History    []tasks.Try          `json:"history,omitempty"`
	Message    *mailer.EmailMessage `json:"message"`
	Payload    []byte               `json:"payload,omitempty"` // if there is no message to be read in it
	Missing    []string             `json:"missing,omitempty"` // attachments whose content is lost
}

// exportLine returns what prints a letter as a JSON line.
func (a *app) exportLine() func(*tasks.DeadLetter) error {
	out := lineEncoder(a.std.Out)
	return func(l *tasks.DeadLetter) error {
		e := exported{l.ID, l.Queue, l.Reason, l.Tries, l.At, l.Recipients, l.Tags, l.Mailing, l.History, l.Message, nil, l.Missing}
		if l.Message == nil {
			e.Payload = l.Payload
		}
		return out.Encode(e)
	}
}

func (a *app) exportFiles(dir string, d *tasks.DeadLetters, found letters) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	_, err := a.each(found, "written", func(l *tasks.DeadLetter) error {
		l, err := d.Get(l.Queue, l.ID)
		if err != nil {
			return err
		}
		if len(l.Missing) > 0 {
			fmt.Fprintf(a.std.Err, "enqueue: %s: missing: %s\n", cli.Line(l.ID), cli.Line(strings.Join(l.Missing, "; ")))
		}
		file := filepath.Join(dir, filepath.Base(l.ID)+".eml")
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in the directory that the user names
		if err != nil {
			return err
		}
		return errors.Join(writeLetter(f, l), f.Close())
	})
	return err
}
