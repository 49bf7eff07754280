package workercli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/internal/pages"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

func demoCommand(std cli.Streams) *cobra.Command {
	d := &demo{std: std, ids: map[string]int{}}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show it working: queue, worker and mail server in one process",
		Long: `Show it working. One process starts a Redis and a mail server of its own, queues
many mails, delivers them and says what happened. It reads no settings, needs
nothing installed and reaches nobody: the mail server keeps what it gets.`,
		Example: `  worker demo
  worker demo --count 20000
  worker demo --keep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().IntVar(&d.count, "count", 1000, "how many mails to send")
	c.Flags().BoolVar(&d.keep, "keep", false, "stay up afterwards and print every mail that arrives")
	return c
}

// demo is a whole installation in one process.
type demo struct {
	std   cli.Streams
	count int
	keep  bool

	redis  *embedded.Redis
	server *catcher.Server
	client redis.UniversalClient
	state  *pages.State
	worker *tasks.Worker

	mu       sync.Mutex
	batches  []tasks.Batch
	ids      map[string]int // how often each Message-ID arrived
	sample   []byte         // one mail in full
	printing bool           // every mail that arrives
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.count < 1 {
		return cli.Exitf(cli.ExitUsage, "--count %d: at least one mail is expected", d.count)
	}
	stop, err := d.start()
	if err != nil {
		return err
	}
	defer stop()
	d.say("Mailpouch demo: %s mails through a queue and a worker to a mail server.\n", thousands(d.count))
	d.say("  Redis (embedded)        %s", d.redis.URL())
	d.say("  mail server (embedded)  %s\n", d.server.Addr())

	queueing, err := d.enqueue(ctx)
	if err != nil {
		return err
	}
	stopWorker, err := d.work(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopWorker()) }()
	delivering, err := d.deliver(ctx)
	if err != nil {
		return err
	}
	missing := d.report(queueing, delivering)
	if d.keep {
		if err := d.stayUp(ctx); err != nil {
			return err
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d mails did not arrive", missing, d.count)
	}
	return nil
}

// start starts the Redis and the mail server.
func (d *demo) start() (stop func(), err error) {
	if d.redis, err = embedded.Start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	if d.server, err = catcher.Start(catcher.Config{MaxKeep: -1, OnMessage: d.received}); err != nil {
		d.redis.Close()
		return nil, err
	}
	if d.client, err = redisconn.ConnectWorker(d.redis.URL()); err != nil {
		return nil, err
	}
	return func() {
		_ = d.client.Close()
		_ = d.server.Close()
		d.redis.Close()
	}, nil
}

// received counts a mail that arrives.
func (d *demo) received(m catcher.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids[messageID(m.Raw)]++
	if m.Number <= d.count/2+1 {
		d.sample = m.Raw
	}
	if d.printing {
		_ = catcher.Print(d.std.Out, m)
	}
}

// enqueue is the web application's part.
func (d *demo) enqueue(ctx context.Context) (time.Duration, error) {
	queue := tasks.NewQueue(d.client, tasks.QueueConfig{})
	m, err := mailer.New(mailer.Config{Connect: queue.Connect, Defaults: mailer.Defaults{Hostname: "demo.example"}})
	if err != nil {
		return 0, err
	}
	bar := cli.NewBar(d.std.Err, d.count, "queueing  ")
	start := time.Now()
	for i := range d.count {
		_, err := m.SendMail(ctx,
			fmt.Sprintf("Your parcel no. %d is on its way ✓", i+1),
			"Hello,\n\nyour parcel has left our house today.\n\nThe Mailpouch demo\n",
			"Parcel Service <parcels@demo.example>",
			[]string{fmt.Sprintf("customer%d@example.com", i+1)}, nil)
		if err != nil {
			return 0, err
		}
		bar.Add(1)
	}
	bar.Finish()
	return time.Since(start), nil
}

// work starts the worker. stop returns what its Run does.
func (d *demo) work(ctx context.Context) (stop func() error, err error) {
	log := zerolog.New(zerolog.ConsoleWriter{Out: d.std.Err, NoColor: !cli.IsTerminal(d.std.Err)}).Level(zerolog.WarnLevel)
	d.state = pages.NewState()
	worker, err := tasks.NewWorker(d.client, tasks.WorkerConfig{
		Connect: func(string) (mailer.Backend, error) {
			return smtp.New(smtp.Config{Addrs: []string{d.server.Addr()}, Hostname: "demo.example", Hooks: d.state.Hooks("")})
		},
		Logger:    &log,
		Observers: []tasks.Observer{{Batch: d.onBatch}, d.state.Observer()},
	})
	if err != nil {
		return nil, err
	}
	d.worker = worker
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	return func() error { cancel(); return <-done }, nil
}

func (d *demo) onBatch(b tasks.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.batches = append(d.batches, b)
}

// demoTimeout is how long the demo waits for its mails.
const demoTimeout = 2 * time.Minute

func (d *demo) deliver(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	bar := cli.NewBar(d.std.Err, d.count, "delivering")
	start := time.Now()
	for arrived := 0; arrived < d.count; {
		next := min(arrived+max(d.count/50, 1), d.count)
		if err := d.server.Wait(ctx, next); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				break // the report says how many are missing
			}
			return 0, err
		}
		bar.Add(next - arrived)
		arrived = next
	}
	bar.Finish()
	return time.Since(start), nil
}

// report prints what happened and returns how many mails are missing.
func (d *demo) report(queueing, delivering time.Duration) (missing int) {
	stats := d.server.Stats()
	d.mu.Lock()
	defer d.mu.Unlock()
	twice := stats.Accepted - len(d.ids)
	d.say("accepted     %s of %s, %d missing, %d twice", thousands(len(d.ids)), thousands(d.count), d.count-len(d.ids), twice)
	d.say("queued at    %s mails/s (one goroutine, embedded Redis)", rate(d.count, queueing))
	d.say("delivered at %s mails/s", rate(stats.Accepted, delivering))
	d.say("connections  %d opened, for %s mails", stats.Opened, thousands(stats.Accepted))
	d.say("batches      %s\n", batchSizes(d.batches))
	d.say("One of them, as the mail server got it:\n\n%s", indent(d.sample))
	return d.count - len(d.ids)
}

func batchSizes(batches []tasks.Batch) string {
	if len(batches) == 0 {
		return "none"
	}
	smallest, largest, sum := batches[0].Size, 0, 0
	for _, b := range batches {
		smallest, largest, sum = min(smallest, b.Size), max(largest, b.Size), sum+b.Size
	}
	return fmt.Sprintf("%d, of %d to %d mails, %.1f on average", len(batches), smallest, largest, float64(sum)/float64(len(batches)))
}

// stayUp prints the mails that others queue, and serves the worker's pages, until ctx ends.
func (d *demo) stayUp(ctx context.Context) error {
	client, err := redisconn.ConnectStatus(d.redis.URL())
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	server, err := pages.Start(pages.Config{
		Addr: "127.0.0.1:0", Redis: client, State: d.state, Held: d.worker.Held, WorkerID: d.worker.ID(), Ending: ctx.Done(),
		Queues: map[string]int{"default": 1}, Version: cli.Version(), AllowWrite: true,
	})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	d.say("\nStaying up. Queue more from a second terminal, and see it arrive here:\n")
	d.say("  REDIS_URL=%s go run ./cmd/enqueue send --to you@example.com --subject Hello --body \"It works.\"\n", d.redis.URL())
	d.say("The worker's pages, with all that has happened:\n\n  %s\n", server.URL())
	d.say("Ctrl-C ends it.")
	d.mu.Lock()
	d.printing = true
	d.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.std.Out, format+"\n", args...) }

func rate(n int, d time.Duration) string { return thousands(int(float64(n) / d.Seconds())) }

// thousands writes 12345 as 12,345.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func indent(data []byte) string {
	text := strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}

// messageID finds the message's own id in its header.
func messageID(data []byte) string {
	for line := range bytes.SplitSeq(data, []byte("\r\n")) {
		if id, ok := bytes.CutPrefix(line, []byte("Message-ID: ")); ok {
			return string(id)
		}
	}
	return ""
}
