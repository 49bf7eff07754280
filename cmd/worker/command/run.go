package command

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func runCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	var trace bool
	var profiles string
	c := &cobra.Command{
		Use:   "run",
		Short: "Deliver mail until told to stop",
		Long: `Deliver mail until told to stop. SIGTERM, SIGINT or SIGHUP ends it in order: it takes
nothing new, ends what is on the wire and gives the rest back to the queue. A
second signal ends it at once.`,
		Example: `  worker run
  REDIS_URL=redis://cache.example.com:6379/0 EMAIL_HOST=smtp.example.com worker run
  EMAIL_QUEUE_BACKEND=console worker run`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if trace {
				registry = traced(registry, std.Err)
			}
			if profiles != "" {
				at, stop, err := servePprof(profiles)
				if err != nil {
					return err
				}
				defer stop()
				fmt.Fprintf(std.Err, "profiles are at http://%s/debug/pprof/\n", at)
			}
			return run(c.Context(), std, registry)
		},
	}
	c.Flags().BoolVar(&trace, "trace", false, "print every SMTP conversation, without logins and message bodies")
	c.Flags().StringVar(&profiles, "pprof", "", "serve Go's profiles at this address of this machine, such as 127.0.0.1:6060")
	return c
}

// traced returns the registry with an smtp backend that prints its conversations. Each
// backend, which is one connection at a time, has a number.
func traced(registry backends.Registry, w io.Writer) backends.Registry {
	registry = maps.Clone(registry)
	var last atomic.Int64
	registry["smtp"] = func(s settings.Settings) (mailer.Backend, error) {
		number := last.Add(1)
		return backends.SMTP(s, func(line string) { fmt.Fprintf(w, "smtp %d %s\n", number, line) })
	}
	return registry
}

func run(ctx context.Context, std cli.Streams, registry backends.Registry) error {
	s, err := cli.Settings(std)
	if err != nil {
		return err
	}
	if err := s.HTTP.CheckAccess(); err != nil {
		return err
	}
	log := newLogger(std.Err, s.Log)
	client, err := tasks.ConnectWorker(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = client.Close() }()
	looking, err := tasks.ConnectStatus(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = looking.Close() }()
	cfg, err := workerConfig(ctx, s, registry, &log)
	if err != nil {
		return err
	}
	trace(&cfg)
	show := watch(s, looking, &cfg)
	keepMemoryLow(cfg.Memory, os.Getenv)
	worker, err := tasks.NewWorker(client, cfg)
	if err != nil {
		return err
	}
	// A worker outlives a Redis that goes away, but one that is not there at the start is
	// more likely a mistake: say so at once.
	found, err := tryRedis(ctx, s)
	if err != nil {
		return cli.Exitf(cli.ExitUnavailable, "Redis %s: %w", s.Queue.RedisURL, err)
	}
	for _, warning := range found.Warnings {
		log.Warn().Msg(warning)
	}
	show.Held = worker.Held
	stop, err := startPages(ctx, s, show)
	if err != nil {
		return err
	}
	defer stop() // the pages stay until the worker has ended
	return worker.Run(ctx)
}

// workerConfig is the worker that the settings describe.
func workerConfig(ctx context.Context, s settings.Settings, registry backends.Registry, log *zerolog.Logger) (tasks.WorkerConfig, error) {
	s.Message.Hostname = backends.Hostname(ctx, s)
	connections, reply, err := mailers(s)
	return tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			named, err := s.Named(name)
			if err != nil {
				return nil, err
			}
			return registry.New(named.Worker.Backend, named)
		},
		Mailers: connections,
		Queues:  s.Worker.Queues, Shards: s.Queue.Shards, Connections: s.Worker.Connections, BatchSize: s.Worker.BatchSize, Memory: s.Worker.Memory.OrNever(),
		RetryMin: s.Worker.RetryMin, RetryMax: s.Worker.RetryMax, MaxAge: s.Worker.MaxAge,
		BatchTimeout: s.Worker.BatchTimeout, ReplyTimeout: reply, ShutdownTimeout: s.Worker.ShutdownTimeout,
		Logger: log,
	}, err
}

// mailers are the named mailers, how many connections each has, and the longest time
// that one of all mailers may wait for the reply to a whole message.
func mailers(s settings.Settings) (connections map[string]int, reply time.Duration, err error) {
	connections, reply = map[string]int{}, s.SMTP.DataTimeout
	for _, name := range s.Mailers() {
		named, err := s.Named(name)
		if err != nil {
			return nil, 0, err
		}
		connections[name] = named.Worker.Connections
		reply = max(reply, named.SMTP.DataTimeout)
	}
	return connections, reply, nil
}

// newLogger writes JSON for programs, and lines for people on a terminal.
func newLogger(w io.Writer, s settings.Log) zerolog.Logger {
	level, err := zerolog.ParseLevel(s.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if s.Format == "console" || s.Format == "auto" && cli.IsTerminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !cli.IsTerminal(w)}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}
