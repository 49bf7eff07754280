package workercli

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/intakeconfig"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// startWebhooks posts events as the settings say, until stop is called. The dispatcher is nil if they go nowhere.
func startWebhooks(ctx context.Context, s settings.Settings, log *zerolog.Logger, observers ...webhook.Observer) (d *webhook.Dispatcher, stop func(), err error) {
	if len(s.Events.URLs.All()) == 0 {
		return nil, func() {}, nil
	}
	cfg, err := intakeconfig.Webhooks(s)
	if err != nil {
		return nil, nil, err
	}
	client, err := tasks.Connect(s.Queue.RedisURL.Reveal())
	if err != nil {
		return nil, nil, cli.Exit(cli.ExitConfig, err)
	}
	cfg.Redis, cfg.Logger, cfg.Observers = client, log, observers
	if d, err = webhook.New(cfg); err != nil {
		return nil, nil, err
	}
	for _, t := range cfg.Targets {
		log.Info().Str("endpoint", t.Name()).Msg("posts events")
	}
	// What the last messages come to is posted too: it ends when the worker has ended, not when that begins to.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	return d, func() {
		cancel()
		running.Wait()
		_ = client.Close()
	}, nil
}

// reloadWebhooks gives a dispatcher the secrets and URLs of the settings.
func reloadWebhooks(d *webhook.Dispatcher, s settings.Settings) error {
	if d == nil {
		return nil
	}
	cfg, err := intakeconfig.Webhooks(s)
	if err == nil {
		err = d.Reload(cfg.Targets)
	}
	return err
}
