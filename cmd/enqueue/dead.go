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

func (a *app) deadCommand() *cobra.Command {
	dead := &cobra.Command{
		Use:   "dead",
		Short: "Dead letters: messages that could not be delivered",
		Long: `Dead letters: messages, or some of their recipients, that could not be delivered
and will not be tried again by themselves. They stay until they are replayed or
deleted.

An ID may be given by its beginning, of four characters or more, as long as that is
the beginning of one alone.`,
		Example: `  enqueue dead list
  enqueue dead show VQK2X7
  enqueue dead replay --reason "mailbox full"
  enqueue dead export > dead.jsonl`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Exitf(cli.ExitUsage, "unknown command %q for \"enqueue dead\": list, show, replay, delete, export and count are there", args[0])
			}
			fmt.Fprint(a.std.Err, c.UsageString())
			return cli.Exitf(cli.ExitUsage, "a command is expected: list, show, replay, delete, export or count")
		},
	}
	dead.AddCommand(
		a.deadSubcommand("list", "Print a line for each", true, a.deadList),
		a.deadSubcommand("show", "Print the reason and the whole message", false, a.deadShow),
		a.deadSubcommand("replay", "Queue them anew, as if handed over now", false, a.deadReplay),
		a.deadSubcommand("delete", "Delete them for good", false, a.deadDelete),
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
		Example: fmt.Sprintf("  enqueue dead %[1]s VQK2X7\n  enqueue dead %[1]s --queue bulk --all\n  enqueue dead %[1]s --reason 550", name),
		RunE: func(c *cobra.Command, args []string) error {
			s.ids = args
			s.all = s.all || everything && len(args) == 0 && s.reason == ""
			return a.dead(c.Context(), s, work)
		},
	}
	c.Flags().StringVar(&s.queue, "queue", "", "those of this queue only")
	c.Flags().StringVar(&s.reason, "reason", "", "those whose reason contains this `text`")
	all := "all of them"
	if everything {
		all += ", as if nothing were named"
	}
	c.Flags().BoolVar(&s.all, "all", false, all)
	return c
}

func (a *app) deadExportCommand() *cobra.Command {
	var dir string
	c := a.deadSubcommand("export", "Print them as JSON lines, or write them as .eml files", true,
		func(_ context.Context, d *tasks.DeadLetters, found letters) error {
			return a.deadExport(dir, d, found)
		})
	c.Flags().StringVar(&dir, "eml", "", "write each as a file ID.eml in this `directory` instead")
	return c
}

func (a *app) deadCountCommand() *cobra.Command {
	var queue string
	c := &cobra.Command{
		Use: "count", Short: "Print how many there are: the number to alarm on",
		Example: "  enqueue dead count\n  enqueue dead count --queue bulk",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.deadCount(c.Context(), queue) },
	}
	c.Flags().StringVar(&queue, "queue", "", "those of this queue only")
	return c
}

func (a *app) deadCount(ctx context.Context, queue string) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	d := tasks.NewDeadLetters(a.pouch.Redis)
	queues, err := a.deadQueues(d, queue)
	if err != nil {
		return err
	}
	sum, err := count(ctx, d, queues)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.std.Out, sum)
	return nil
}

// aligned is how many lines of a list are in memory, and share the widths of their columns.
const aligned = 1000

func (a *app) deadList(_ context.Context, _ *tasks.DeadLetters, found letters) error {
	t := tabwriter.NewWriter(a.std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tQUEUE\tWHEN\tTRIES\tTO\tSUBJECT\tREASON")
	lines := 0
	for l, err := range found.all {
		if err != nil {
			return errors.Join(t.Flush(), err)
		}
		subject := "(cannot be read)"
		switch {
		case l.Message != nil:
			subject = cmp.Or(l.Message.Subject, l.Message.RawHeader("Subject"))
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

func (a *app) deadShow(_ context.Context, d *tasks.DeadLetters, found letters) error {
	out := cli.Shown(a.std.Out)
	return eachWhole(d, found, func(l *tasks.DeadLetter) error {
		fmt.Fprintf(out, "id: %s\nqueue: %s\nwhen: %s\ntries: %d\nnot delivered to: %s\nreason: %s\n",
			cli.Line(l.ID), cli.Line(l.Queue), l.At.Format(time.RFC3339), l.Tries, cli.Line(strings.Join(l.Recipients, ", ")), cli.Line(l.Reason))
		for _, missing := range l.Missing {
			fmt.Fprintf(out, "missing: %s\n", cli.Line(missing))
		}
		fmt.Fprintln(out)
		if err := writeLetter(out, l); err != nil {
			fmt.Fprintf(out, "(%s)\n%s\n", cli.Line(err.Error()), l.Payload)
		}
		fmt.Fprintln(out)
		return nil
	})
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

func (a *app) deadReplay(ctx context.Context, d *tasks.DeadLetters, found letters) error {
	return a.each(found, "queued again", func(l *tasks.DeadLetter) error {
		_, err := d.Replay(ctx, l.Queue, l.ID)
		return err
	})
}

func (a *app) deadDelete(ctx context.Context, d *tasks.DeadLetters, found letters) error {
	return a.each(found, "deleted", func(l *tasks.DeadLetter) error { return d.Delete(ctx, l.Queue, l.ID) })
}

// each calls work with every letter. It prints the error of a letter and goes on with the
// others, unless Redis is unavailable. What somebody else has replayed or deleted meanwhile does
// not count.
func (a *app) each(found letters, done string, work func(*tasks.DeadLetter) error) error {
	bar := cli.NewBar(a.std.Err, found.most, done)
	all, failed, gone := 0, 0, 0
	for l, err := range found.all {
		if err != nil {
			return err
		}
		all++
		err := work(l)
		if err != nil && mailer.ClassOf(err) == mailer.Unavailable {
			return err
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
		return cli.Exitf(cli.ExitData, "%d could not be %s", failed, done)
	}
	return nil
}

// exported is a line of export.
type exported struct {
	ID         string               `json:"id"`
	Queue      string               `json:"queue"`
	Reason     string               `json:"reason"`
	Tries      int                  `json:"tries"`
	At         time.Time            `json:"at"`
	Recipients []string             `json:"recipients"`
	Message    *mailer.EmailMessage `json:"message"`
	Payload    []byte               `json:"payload,omitempty"` // if there is no message to be read in it
	Missing    []string             `json:"missing,omitempty"` // attachments whose content is lost
}

func (a *app) deadExport(dir string, d *tasks.DeadLetters, found letters) error {
	if dir != "" {
		return a.exportFiles(dir, d, found)
	}
	out := json.NewEncoder(cli.Shown(a.std.Out))
	out.SetEscapeHTML(false) // it is no web page
	return eachWhole(d, found, func(l *tasks.DeadLetter) error {
		e := exported{l.ID, l.Queue, l.Reason, l.Tries, l.At, l.Recipients, l.Message, nil, l.Missing}
		if l.Message == nil {
			e.Payload = l.Payload
		}
		return out.Encode(e)
	})
}

func (a *app) exportFiles(dir string, d *tasks.DeadLetters, found letters) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	return a.each(found, "written", func(l *tasks.DeadLetter) error {
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
}
