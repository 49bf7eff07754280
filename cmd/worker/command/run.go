package command

import (
	"context"
	"io"
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
	return &cobra.Command{
		Use:   "run",
		Short: "Deliver mail until told to stop",
		Long: `Deliver mail until told to stop. SIGTERM or SIGINT ends it in order: it takes
nothing new, ends what is on the wire and gives the rest back to the queue. A
second signal ends it at once.`,
		Example: `  worker run
  REDIS_URL=redis://cache.example.com:6379/0 EMAIL_HOST=smtp.example.com worker run
  EMAIL_QUEUE_BACKEND=console worker run`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), std, registry) },
	}
}

func run(ctx context.Context, std cli.Streams, registry backends.Registry) error {
	s, err := cli.Settings(std)
	if err != nil {
		return err
	}
	log := newLogger(std.Err, s.Log)
	client, err := tasks.ConnectWorker(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = client.Close() }()
	worker, err := tasks.NewWorker(client, workerConfig(ctx, s, registry, &log))
	if err != nil {
		return err
	}
	// A worker outlives a Redis that goes away, but one that is not there at the start is
	// more likely a mistake: say so at once.
	if err := tryRedis(ctx, s); err != nil {
		return cli.Exitf(cli.ExitUnavailable, "Redis %s: %w", s.Queue.RedisURL, err)
	}
	return worker.Run(ctx)
}

// workerConfig is the worker that the settings describe.
func workerConfig(ctx context.Context, s settings.Settings, registry backends.Registry, log *zerolog.Logger) tasks.WorkerConfig {
	s.Message.Hostname = backends.Hostname(ctx, s)
	return tasks.WorkerConfig{
		Connect: func() (mailer.Backend, error) { return registry.New(s.Worker.Backend, s) },
		Queues:  s.Worker.Queues, Connections: s.Worker.Connections, BatchSize: s.Worker.BatchSize,
		RetryMin: s.Worker.RetryMin, RetryMax: s.Worker.RetryMax, MaxAge: s.Worker.MaxAge,
		BatchTimeout: s.Worker.BatchTimeout, ReplyTimeout: s.SMTP.DataTimeout, ShutdownTimeout: s.Worker.ShutdownTimeout,
		Logger: log,
	}
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
