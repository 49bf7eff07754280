package workercli

import (
	"context"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func runCommand(std cli.Streams, registry backends.Registry, configure []func(*tasks.WorkerConfig)) *cobra.Command {
	how := runFlags{configure: configure}
	c := &cobra.Command{
		Use:   "run",
		Short: "Deliver mail until told to stop",
		Long: `Deliver mail until told to stop. SIGTERM or SIGINT ends it in order: it takes
nothing new, ends what is on the wire and gives the rest back to the queue. A
second signal ends it at once. SIGHUP makes it read the files of secrets again
(EMAIL_HOST_PASSWORD_FILE and the like) and log in anew; what is on the wire goes
on. If its terminal goes away it ends in order. A SIGHUP or SIGINT that is ignored
when it starts stays ignored, as nohup wants it.`,
		Example: `  worker run
  REDIS_URL=redis://cache.example.com:6379/0 EMAIL_HOST=smtp.example.com worker run
  EMAIL_QUEUE_BACKEND=console worker run`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, warnings, err := registry.Load()
			log := newLogger(std.Err, s.Log)
			adopt(std.Err, log)
			for _, w := range warnings {
				log.Warn().Msg(w)
			}
			if err == nil {
				err = run(c.Context(), s, registry, log, how)
			}
			return logged(log, err)
		},
	}
	c.Flags().BoolVar(&how.trace, "trace", false, "log every SMTP conversation, without logins and message bodies")
	c.Flags().StringVar(&how.profiles, "pprof", "", "serve Go's profiles at this address of this machine, such as 127.0.0.1:6060")
	return c
}

// runFlags are the flags of run, and what the program adds.
type runFlags struct {
	trace     bool
	profiles  string
	configure []func(*tasks.WorkerConfig) // by the program
}

func run(ctx context.Context, s settings.Settings, registry backends.Registry, log zerolog.Logger, how runFlags) error {
	if how.trace {
		registry = traced(registry, log, s.Log)
	}
	if how.profiles != "" {
		at, stop, err := servePprof(how.profiles)
		if err != nil {
			return err
		}
		defer stop()
		log.Info().Str("url", "http://"+at.String()+"/debug/pprof/").Msg("profiles")
	}
	hangups := cli.Hangups(ctx)
	if err := s.CheckWorker(); err != nil {
		return err
	}
	client, err := redisconn.ConnectWorker(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = client.Close() }()
	looking, err := redisconn.ConnectStatus(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = looking.Close() }()
	cfg, err := mailpouch.WorkerConfig(ctx, s, registry)
	if err != nil {
		return err
	}
	cfg.Logger = &log
	again := newReloader(s, registry, cfg.Connect, log)
	cfg.Connect = again.connect
	trace(&cfg)
	sayOddSizes(&cfg, log)
	cfg.Connect = tokensWatched(cfg.Connect, sayTokens(log))
	show, counted := watch(s, looking, &cfg)
	for _, configure := range how.configure {
		configure(&cfg)
	}
	keepMemoryLow(withIntake(cfg.Memory, s), os.Getenv)
	worker, err := tasks.NewWorker(client, cfg)
	if err != nil {
		return err
	}
	if err := findRedis(ctx, s, log, "the worker waits until Redis can be written to"); err != nil || ctx.Err() != nil {
		return err
	}
	show.Held, show.WorkerID = worker.Held, worker.ID()
	server, err := startPages(ctx, s, show)
	if err != nil {
		return err
	}
	defer stopPages(server, log) // the pages stay until the worker has ended
	in, err := startIntakes(ctx, s, show.State, counted, log)
	if err != nil {
		return err
	}
	defer in.endWith(ctx)()
	hooks, stopHooks, err := startWebhooks(ctx, s, &log, counted.Posted())
	if err != nil {
		return err
	}
	defer stopHooks()
	if hooks != nil {
		counted.Webhooks(hooks.State)
		show.State.Webhooks(hooks.State)
	}
	again.worker, again.pages, again.counted, again.in, again.hooks = worker, server, counted, in, hooks
	defer again.watch(ctx, hangups)()
	return worker.Run(ctx)
}

// findRedis looks for Redis, and logs what there is to say of it. A process outlives a Redis that goes away, but one that is not there at
// the start is more likely a mistake: say so at once. Where the process was stopped meanwhile there is no error.
func findRedis(ctx context.Context, s settings.Settings, log zerolog.Logger, refuses string) error {
	found, err := tryRedis(ctx, s)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return cli.Exitf(cli.ExitUnavailable, "Redis %s: %w", s.Queue.RedisURL, err)
	case found.Refuses != nil:
		log.Error().Err(found.Refuses).Msg(refuses)
	}
	for _, warning := range found.Warnings {
		log.Warn().Msg(warning)
	}
	return nil
}
