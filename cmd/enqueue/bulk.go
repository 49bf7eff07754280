package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// maxConcurrency is about how many connections one Redis can spare.
const maxConcurrency = 1000

func (a *app) bulkCommand() *cobra.Command {
	b := bulk{app: a}
	c := &cobra.Command{
		Use:   "bulk FILE|-",
		Short: "Queue many messages, one JSON object a line",
		Long: `Queue many messages, one JSON object a line. Queue options for one message are in
its line under "options"; those given as flags are for all the others. Lines are
handed over by several goroutines, so they are not sent in their order.

A file is checked whole before its first line is queued: if a line is wrong, its
number is printed and nothing is queued. From a pipe each line is queued as it
comes; wrong ones are left out and named, and the number queued is printed.

With --resume NAME a run that was interrupted, in whatever way, can be repeated with
the same file and name: lines that were queued before are not queued again, until
EMAIL_IDEMPOTENCY_WINDOW after their mail was sent. A line that was changed is a new
mail; the same line twice in a file is two mails. Each message is then a task of its
own, which is slower. A line's own "idempotency_key" or "unique" goes first.

The messages are a mailing, whose name is printed with how many they are: the one of
--mailing, else that of --resume, else one made of the time. With it all of them can be
cancelled, paused and resumed, as long as they are not on the wire. A line's own "mailing"
goes first. --ids writes a file with the ID of each message that was queued, a line each,
in the order of the input; a run that is repeated with --resume writes those of earlier
runs too.`,
		Example: `  enqueue bulk messages.jsonl
  make-newsletter | enqueue bulk - --queue bulk
  enqueue bulk july.jsonl --resume newsletter-july
  enqueue bulk july.jsonl --mailing july --ids july.ids
  enqueue cancel --mailing july

  A line:
  {"subject": "Hello", "body": "It works.", "to": ["ann@example.com"], "options": {"process_in": "1h"}}
  {"body": "News.", "to": ["ann@example.com"], "list_unsubscribe": {"url": "https://example.com/u/Zm9v", "one_click": true}}`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return b.run(c.Context(), args[0]) },
	}
	b.base.lists.addFlags(c, ", of lines that name none")
	b.base.addFlags(c)
	cli.NameVar(c.Flags(), &b.resume, "resume", "`name` of this mailing: what was queued under it before is not queued again")
	c.Flags().StringVar(&b.ids, "ids", "", "write the ID of each message that was queued to this `file`, one a line")
	c.Flags().IntVar(&b.concurrency, "concurrency", 32, "hand over this many groups of lines at the same time")
	return c
}

// bulk is one run of the command.
type bulk struct {
	app         *app
	base        options
	resume      string
	ids         string
	concurrency int
	spooled     int // bytes of the file that are kept while it is checked: maxSpooled if zero

	idsTo *bufio.Writer // nil: nobody asks for them

	queued int // in the first run over a file: the good ones
	bad    int
	lost   ranges // lines that were not queued though nothing is wrong with them
	maybe  ranges // lines of which that is not known: Redis has not answered
	why    error  // the first of them
	total  int    // lines seen
	end    int    // the number of a file's last line: 0 if that is not known
}

func (b *bulk) run(ctx context.Context, file string) error {
	defer collectLess()()
	o, err := b.checkFlags()
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if err := b.app.connect(ctx); err != nil {
		return err
	}
	defer b.app.close()
	if _, err := b.app.pouch.Queue.Using(o.Using); err != nil {
		return err
	}
	input, err := b.app.openInput(file)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	closeIDs, err := b.openIDs()
	if err != nil {
		return err
	}
	if seeker, ok := regularFile(input); ok {
		err = b.file(ctx, input, seeker)
	} else {
		err = b.send(ctx, newChunker(input, b.mostLines(), newKeys(b.resume)).next, -1)
	}
	return cmp.Or(err, closeIDs())
}

// heapFor is how much memory the command takes before garbage is collected as eagerly as Go does by itself. What it has in
// hand is bounded by maxSpooled and maxInFlight.
const heapFor = 192 << 20

// collectLess has garbage collected less often while there is memory for it, which is a tenth of the work, unless the environment says
// how often. restore undoes that.
func collectLess() (restore func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	percent, limit := debug.SetGCPercent(400), debug.SetMemoryLimit(heapFor)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// openIDs opens the file of --ids, before anything is queued.
func (b *bulk) openIDs() (closeIDs func() error, err error) {
	if b.ids == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(b.ids)
	if err != nil {
		return nil, cli.Exit(cli.ExitNoInput, err)
	}
	b.idsTo = bufio.NewWriter(f)
	return func() error {
		if err := errors.Join(b.idsTo.Flush(), f.Close()); err != nil {
			return cli.Exit(cli.ExitNoInput, fmt.Errorf("--ids: %w (all is queued)", err))
		}
		return nil
	}, nil
}

// checkFlags returns the options of lines that have none.
func (b *bulk) checkFlags() (tasks.Options, error) {
	if b.concurrency < 1 || b.concurrency > maxConcurrency {
		return tasks.Options{}, fmt.Errorf("--concurrency %d: 1 to %d are possible", b.concurrency, maxConcurrency)
	}
	if b.base.Mailing == "" {
		b.base.Mailing = mailingName(b.resume, time.Now())
	}
	o := b.base
	if b.resume != "" {
		if o.Unique != "" {
			return tasks.Options{}, errors.New("--resume and --unique exclude each other")
		}
		o.IdempotencyKey = new(newKeys(b.resume).of(nil))
	}
	return o.read()
}

// mailingName is the name of a run's mailing that has none of its own.
func mailingName(resume string, now time.Time) string {
	if resume == "" {
		return now.Format("bulk-20060102-150405-") + strings.ToLower(rand.Text()[:4])
	}
	return strings.Map(func(r rune) rune {
		if name.Is(string(r)) {
			return r
		}
		return '-'
	}, resume)
}

// regularFile reports whether the input can be read twice.
func regularFile(r io.Reader) (io.Seeker, bool) {
	f, ok := r.(*os.File)
	if !ok {
		return nil, false
	}
	info, err := f.Stat()
	return f, err == nil && info.Mode().IsRegular()
}

// file checks every line and then queues every line.
func (b *bulk) file(ctx context.Context, r io.Reader, s io.Seeker) error {
	start, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	ready := spool{most: cmp.Or(b.spooled, maxSpooled)}
	lines := newChunker(r, b.mostLines(), newKeys(b.resume))
	err = eachChunk(ctx, lines.next, runtime.GOMAXPROCS(0), func(ctx context.Context, c *chunk) []error { return b.check(ctx, c, &ready) }, func(c chunk) error {
		b.total, b.end = b.total+len(c.lines), max(b.end, c.last())
		b.complain(c)
		ready.add(c)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return cli.Exitf(cli.ExitTempFail, "interrupted: nothing was queued")
	case err != nil:
		return cli.Exit(cli.ExitNoInput, err)
	case b.bad > 0:
		return cli.Exitf(cli.ExitData, "%d of %d lines are wrong: nothing was queued", b.bad, b.total)
	}
	if b.why != nil {
		return fmt.Errorf("%w: nothing was queued", b.why)
	}
	if _, err := s.Seek(start, io.SeekStart); err != nil {
		return cli.Exit(cli.ExitNoInput, err)
	}
	b.queued = 0
	rest := newChunker(r, b.mostLines(), newKeys(b.resume))
	return b.send(ctx, ready.before(rest), b.total)
}

const (
	maxLines      = 1000 // in a chunk
	maxKeyedLines = 50   // which are handed over one by one
)

// mostLines is how many lines a chunk has at most.
func (b *bulk) mostLines() int {
	if b.resume != "" {
		return maxKeyedLines
	}
	return maxLines
}

// send queues the lines. total is how many there are, or -1.
func (b *bulk) send(ctx context.Context, next func() (chunk, error), total int) error {
	bar := cli.NewBar(b.app.std.Err, total, "queueing")
	last := 0
	err := eachChunk(ctx, next, b.concurrency, b.handOver, func(c chunk) error {
		bar.Add(len(c.lines))
		b.complain(c)
		last = max(last, c.last())
		return b.why
	})
	bar.Finish()
	switch {
	case b.why != nil || err != nil:
		return b.interrupted(ctx, err, last)
	case b.bad > 0:
		return cli.Exitf(cli.ExitData, "%d queued, %d lines left out (mailing %s)", b.queued, b.bad, b.base.Mailing)
	}
	fmt.Fprintf(b.app.std.Out, "%d queued\nmailing %s\n", b.queued, b.base.Mailing)
	return nil
}

// interrupted is the error of a run that was not finished. It says how to go on.
func (b *bulk) interrupted(ctx context.Context, err error, last int) error {
	how := "a run with --resume can be repeated, and this one cancelled as mailing " + b.base.Mailing
	if b.resume != "" {
		how = "repeat it with the same --resume"
	}
	switch {
	case ctx.Err() != nil:
		err = cli.Exitf(cli.ExitTempFail, "interrupted")
	case b.why != nil:
		err = b.why
	default:
		err = cli.Exit(cli.ExitNoInput, err)
	}
	what := fmt.Sprintf("%d queued", b.queued)
	if len(b.maybe) > 0 {
		what += "; perhaps queued: lines " + b.maybe.String()
	}
	if b.end == 0 || last < b.end {
		b.lost.add(last+1, last+1)
		what += "; not queued: lines " + b.lost.String() + " and all after"
	} else if len(b.lost) > 0 {
		what += "; not queued: lines " + b.lost.String()
	}
	return fmt.Errorf("%w (%s; %s)", err, what, how)
}

// complain prints what is wrong with the lines of a chunk, and counts.
func (b *bulk) complain(c chunk) {
	for i, err := range c.errs {
		n := c.lines[i].n
		switch {
		case err == nil:
			b.queued++
			if b.idsTo != nil && c.lines[i].id != "" { // a line that was only checked has none
				fmt.Fprintln(b.idsTo, c.lines[i].id) // its error comes with Flush
			}
		case isBadLine(err):
			b.bad++
			fmt.Fprintf(b.app.std.Err, "enqueue: line %d: %s\n", n, cli.Line(err.Error()))
		default:
			lines := &b.lost
			if mailer.ClassOf(err) == mailer.Unknown {
				lines = &b.maybe
			}
			lines.add(n, n)
			if b.why == nil {
				b.why = fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
}

// isBadLine reports whether an error is the fault of the line, and not of the queue.
func isBadLine(err error) bool {
	var exit *cli.ExitError
	return mailer.IsBadInput(err) || errors.As(err, &exit) && exit.Code == cli.ExitData
}

// check returns the errors that handing the lines over would return. While there is room for that it makes them ready to be
// queued.
func (b *bulk) check(ctx context.Context, c *chunk, ready *spool) []error {
	if !ready.isFull() {
		return b.prepare(ctx, c)
	}
	errs := make([]error, len(c.lines))
	for i, l := range c.lines {
		if errs[i] = ctx.Err(); errs[i] == nil {
			errs[i] = b.checkLine(l)
		}
		c.lines[i].text = nil
	}
	return errs
}

func (b *bulk) checkLine(l numbered) error {
	e, err := b.parse(l)
	if err != nil {
		return err
	}
	m := e.message.WithDefaults(b.app.defaults)
	if err := b.app.pouch.Queue.CheckSize(m); err != nil {
		return err
	}
	return m.Validate()
}

// prepare makes lines ready to be queued, in place of their text.
func (b *bulk) prepare(ctx context.Context, c *chunk) []error {
	groups, errs := b.groups(c.lines)
	for _, g := range groups {
		p := prepared{b.app.queue(g.entry.queue).Prepare(ctx, mailer.Batch{Messages: g.messages}), g.indexes}
		p.messages.Known(func(reports []mailer.Report) {
			for _, r := range reports {
				errs[g.indexes[r.Index]] = r.Err
			}
		})
		c.prepared = append(c.prepared, p)
	}
	for i := range c.lines {
		c.lines[i].text = nil
	}
	return errs
}

// parse reads a line. It does not check the message itself: the queue does.
func (b *bulk) parse(l numbered) (entry, error) {
	e, err := parseEntry(l.text, b.base)
	if err != nil {
		return e, err
	}
	if l.key != "" && e.queue.IdempotencyKey == "" && e.queue.Unique == 0 {
		e.queue.IdempotencyKey = l.key
	}
	if e.queue.Using != "" {
		if _, err := b.app.pouch.Queue.Using(e.queue.Using); err != nil {
			return e, cli.Exit(cli.ExitData, err)
		}
	}
	if len(e.message.Recipients()) == 0 {
		return e, cli.Exitf(cli.ExitData, "to: nobody to send to")
	}
	return e, nil
}

// group is lines of a chunk that go to the queue together.
type group struct {
	entry    entry // the first one, whose options they all have
	messages []*mailer.EmailMessage
	indexes  []int // in the chunk
}

// groups puts lines with the same options together. A line that cannot be read has an error, and is in none.
func (b *bulk) groups(lines []numbered) ([]*group, []error) {
	errs := make([]error, len(lines))
	var groups []*group
	byOptions := map[string]*group{}
	for i, l := range lines {
		e, err := b.parse(l)
		if errs[i] = err; err != nil {
			continue
		}
		id := e.own + "\n" + e.queue.IdempotencyKey
		g := byOptions[id]
		if g == nil {
			g = &group{entry: e}
			byOptions[id] = g
			groups = append(groups, g)
		}
		g.messages, g.indexes = append(g.messages, e.message), append(g.indexes, i)
	}
	return groups, errs
}

// handOver queues lines: those with the same options together. After the first failure of
// the queue itself the rest is not tried.
func (b *bulk) handOver(ctx context.Context, c *chunk) []error {
	type batch struct {
		send    func(report func([]mailer.Report))
		indexes []int
	}
	var batches []batch
	var errs []error
	if c.prepared != nil {
		errs = make([]error, len(c.lines))
		for _, p := range c.prepared {
			batches = append(batches, batch{func(report func([]mailer.Report)) { p.messages.Send(ctx, report) }, p.indexes})
		}
	} else {
		var groups []*group
		groups, errs = b.groups(c.lines)
		for _, g := range groups {
			batches = append(batches, batch{func(report func([]mailer.Report)) {
				b.app.queue(g.entry.queue).SendBatch(ctx, mailer.Batch{Messages: g.messages, Report: report})
			}, g.indexes})
		}
	}
	var down error
	for _, g := range batches {
		if down != nil {
			for _, i := range g.indexes {
				errs[i] = down
			}
			continue
		}
		g.send(func(reports []mailer.Report) {
			for _, r := range reports {
				i := g.indexes[r.Index]
				if c.lines[i].id, errs[i] = handedOver(r.Reply, r.Err); errs[i] != nil && !isBadLine(errs[i]) {
					down = errs[i]
				}
			}
		})
	}
	return errs
}

// ranges is a set of numbers, such as 3-7 and 9, that are added in rising order.
type ranges [][2]int

func (r *ranges) add(from, to int) {
	if last := len(*r) - 1; last >= 0 && (*r)[last][1]+1 >= from {
		(*r)[last][1] = max(to, (*r)[last][1])
		return
	}
	*r = append(*r, [2]int{from, to})
}

func (r *ranges) String() string {
	texts := make([]string, len(*r))
	for i, span := range *r {
		texts[i] = fmt.Sprint(span[0])
		if span[1] > span[0] {
			texts[i] = fmt.Sprintf("%d-%d", span[0], span[1])
		}
	}
	return strings.Join(texts, ", ")
}
