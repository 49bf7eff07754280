package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
)

func (a *app) bulkCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "bulk FILE|-",
		Short: "Queue many messages, one JSON object a line",
		Long: `Queue many messages, one JSON object a line. Queue options for one message are in
its line under "options"; those given as flags are for all the others.

A file is checked whole before its first line is queued: if a line is wrong, its
number is printed and nothing is queued. From a pipe each line is queued as it
comes; wrong ones are left out and named, and the number queued is printed.

A line with an "idempotency_key" in its options is queued once, so a file of such
lines may be given again when it is not known how far it came.`,
		Example: `  enqueue bulk messages.jsonl
  make-newsletter | enqueue bulk - --queue bulk

  A line:
  {"subject": "Hello", "body": "It works.", "to": ["ann@example.com"], "options": {"process_in": "1h"}}`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.bulk(c.Context(), args[0], o) },
	}
	o.addFlags(c)
	return c
}

func (a *app) bulk(ctx context.Context, file string, o options) error {
	if _, err := o.read(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	input, err := a.openInput(file)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	b := &bulk{app: a, base: o}
	if seeker, ok := regularFile(input); ok {
		return b.file(ctx, input, seeker)
	}
	return b.send(ctx, input, -1)
}

// regularFile says whether the input can be read twice.
func regularFile(r io.Reader) (io.Seeker, bool) {
	f, ok := r.(*os.File)
	if !ok {
		return nil, false
	}
	info, err := f.Stat()
	return f, err == nil && info.Mode().IsRegular()
}

// bulk is one run of the command.
type bulk struct {
	app    *app
	base   options
	queued int
	bad    int
}

// file checks every line and then queues every line.
func (b *bulk) file(ctx context.Context, r io.Reader, s io.Seeker) error {
	start, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	total := 0
	err = eachLine(r, func(n int, line []byte) error {
		total++
		if _, err := b.parse(line); err != nil {
			b.complain(n, err)
		}
		return ctx.Err()
	})
	if err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	if b.bad > 0 {
		return cli.Exitf(cli.ExitData, "%d of %d lines are wrong: nothing was queued", b.bad, total)
	}
	if _, err := s.Seek(start, io.SeekStart); err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	return b.send(ctx, r, total)
}

// send queues each line as it comes. total is how many there are, or -1.
func (b *bulk) send(ctx context.Context, r io.Reader, total int) error {
	bar := cli.NewBar(b.app.std.Err, total, "queueing")
	err := eachLine(r, func(n int, line []byte) error {
		e, err := b.parse(line)
		if err == nil {
			_, err = handedOver(b.app.queue(e.queue).Enqueue(ctx, e.message))
		}
		if err != nil && isBadLine(err) {
			b.complain(n, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w (%d queued before it, go on from there)", n, err, b.queued)
		}
		b.queued++
		bar.Add(1)
		return nil
	})
	bar.Finish()
	switch {
	case err != nil:
		return err
	case b.bad > 0:
		return cli.Exitf(cli.ExitData, "%d queued, %d lines left out", b.queued, b.bad)
	}
	fmt.Fprintf(b.app.std.Out, "%d queued\n", b.queued)
	return nil
}

func (b *bulk) parse(line []byte) (entry, error) {
	e, err := parseEntry(line, b.app.defaults, b.base)
	if err == nil && len(e.message.Recipients()) == 0 {
		err = cli.Exitf(cli.ExitData, "to: nobody to send to")
	}
	if err == nil {
		err = b.app.base.CheckSize(e.message)
	}
	return e, err
}

func (b *bulk) complain(n int, err error) {
	b.bad++
	fmt.Fprintf(b.app.std.Err, "enqueue: line %d: %s\n", n, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// isBadLine says whether a line is wrong, and not the queue.
func isBadLine(err error) bool {
	var exit *cli.ExitError
	return mailer.IsBadInput(err) || errors.As(err, &exit) && exit.Code == cli.ExitData
}

// eachLine calls f with each line that is not blank and its number, from 1.
func eachLine(r io.Reader, f func(n int, line []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			if err := f(n, line); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}
