package workercli

import (
	"context"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/settings"
)

func intakeCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	return &cobra.Command{
		Use:   "intake",
		Short: "Take mail from other programs into the queue, and deliver none",
		Long: `Take mail from other programs into the queue, over SMTP (EMAIL_SUBMISSION_ADDR) and HTTP
(EMAIL_API_ADDR), and deliver none: workers do. "worker run" with these settings does
both. It has the worker's pages too (EMAIL_HTTP_ADDR); it is ready while Redis takes
what is written.

SIGTERM or SIGINT ends it in order: it takes no new connection, and what is being handed
in is. SIGHUP makes it read keys and certificates again.`,
		Example: `  EMAIL_SUBMISSION_ADDR=127.0.0.1:2525 EMAIL_API_KEYS_FILE=/etc/mailpouch/keys worker intake`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// It leaves its mail to workers, so the mailers' secrets are none of its own.
			loader, err := registry.Loader()
			if err != nil {
				return err
			}
			loader.Producer = true
			s, warnings, err := loader.Load()
			log := newLogger(std.Err, s.Log)
			adopt(std.Err, log)
			for _, w := range warnings {
				log.Warn().Msg(w)
			}
			if err == nil {
				err = takeIn(c.Context(), s, registry, log)
			}
			return logged(log, err)
		},
	}
}

func takeIn(ctx context.Context, s settings.Settings, registry backends.Registry, log zerolog.Logger) error {
	if !s.Intake.On() {
		return settings.Problems{{Name: settings.SubmissionVariable, Text: "is not set, and neither is " + settings.APIVariable + ": there is nothing to take mail at"}}
	}
	hangups := cli.Hangups(ctx)
	if err := s.CheckWorker(); err != nil {
		return err
	}
	looking, err := redisconn.ConnectStatus(s.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	defer func() { _ = looking.Close() }()
	show, counted := watchIntake(s, looking, &log)
	keepMemoryLow(withIntake(0, s), os.Getenv)
	if err := findRedis(ctx, s, log, "clients are told to try again later until Redis can be written to"); err != nil || ctx.Err() != nil {
		return err
	}
	server, err := startPages(ctx, s, show)
	if err != nil {
		return err
	}
	defer stopPages(server, log)
	in, err := startIntakes(ctx, s, show.State, counted, log)
	if err != nil {
		return err
	}
	defer in.endWith(ctx)()
	again := newReloader(s, registry, nil, log)
	again.pages, again.counted, again.in = server, counted, in
	defer again.watch(ctx, hangups)()
	log.Info().Msg("intake started")
	<-ctx.Done()
	log.Info().Msg("intake is ending")
	return nil
}
