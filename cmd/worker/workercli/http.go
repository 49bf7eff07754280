package workercli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/metrics"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/internal/pages"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// defaultPorts is how many ports are tried if EMAIL_HTTP_ADDR is not set. So several workers
// on one machine each have their pages without configuration.
const defaultPorts = 10

// watch connects pages and metrics to the worker of cfg, and returns the HTTP server that
// shows them, and the metrics. client is the one that reads Redis for them.
func watch(s settings.Settings, client redis.UniversalClient, cfg *tasks.WorkerConfig) (pages.Config, *metrics.Metrics) {
	state := pages.NewState(s.Mailers()...)
	counted := metrics.New(metrics.Config{
		Redis: client, Mailers: s.Mailers(), Queues: slices.Sorted(maps.Keys(s.Worker.Queues)), Tags: s.HTTP.MetricsTags, Version: cli.Version(),
		Events: s.Events.On(),
	})
	for _, name := range append([]string{""}, s.Mailers()...) {
		if named, err := s.Named(name); err == nil {
			only := named.Delivery.AllowedRecipients
			if only.Everybody() {
				only = nil
			}
			keys := recordNames(named)
			state.Signs(name, keys)
			counted.Signs(name, len(keys))
			state.Recipients(name, named.Delivery.OverrideRecipients, only)
			counted.Recipients(name, len(named.Delivery.OverrideRecipients) > 0, len(only) > 0)
		}
	}
	cfg.Version = cli.Version()
	if s.HTTP.Addr != settings.HTTPOff {
		cfg.Observers = append(cfg.Observers, state.Observer(), counted.Observer())
		cfg.Connect = hooked(cfg.Connect, state.Hooks, counted.Hooks)
		cfg.Connect = tokensWatched(cfg.Connect, state.Tokens, counted.Tokens)
	}
	return pagesConfig(s, client, state, counted, cfg.Logger), counted
}

// watchIntake is watch for a process that only takes mail in.
func watchIntake(s settings.Settings, client redis.UniversalClient, log *zerolog.Logger) (pages.Config, *metrics.Metrics) {
	counted := metrics.New(metrics.Config{Redis: client, Version: cli.Version(), Events: s.Events.On(), NoWorker: true})
	return pagesConfig(s, client, pages.NoWorker(), counted, log), counted
}

func pagesConfig(s settings.Settings, client redis.UniversalClient, state *pages.State, counted *metrics.Metrics, log *zerolog.Logger) pages.Config {
	return pages.Config{
		Addr: s.HTTP.Addr, Ports: ports(s), Password: s.HTTP.Password, Token: s.HTTP.Token, Hosts: s.HTTP.Hosts,
		ShowAddresses: s.HTTP.ShowAddresses, AllowWrite: s.HTTP.AllowWrite,
		Redis: client, State: state, Queues: s.Worker.Queues, Metrics: counted.Handler(), Version: cli.Version(), Logger: log,
	}
}

// ports is how many are tried: one, if the setting names one.
func ports(s settings.Settings) int {
	for _, d := range settings.Describe(s) {
		if d.Name == settings.HTTPAddrVariable && d.Source == settings.FromDefault {
			return defaultPorts
		}
	}
	return 1
}

// startPages starts the worker's HTTP server; it is nil if that is switched off, or has no port. When ctx ends, the worker takes nothing new, and its pages say so.
func startPages(ctx context.Context, s settings.Settings, cfg pages.Config) (*pages.Server, error) {
	if s.HTTP.Addr == settings.HTTPOff {
		return nil, nil //nolint:nilnil // there is none
	}
	cfg.Ending = ctx.Done()
	server, err := pages.Start(cfg)
	switch {
	case errors.Is(err, pages.ErrUnprotected):
		return nil, cli.Exit(cli.ExitConfig, err)
	case errors.Is(err, syscall.EADDRINUSE) && cfg.Ports > 1:
		cfg.Logger.Warn().Msgf("%s and the %d ports after it are in use: this worker has no pages (EMAIL_HTTP_ADDR sets another address)", cfg.Addr, cfg.Ports-1)
		return nil, nil //nolint:nilnil // as above
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, cli.Exitf(cli.ExitUnavailable, "EMAIL_HTTP_ADDR: %s is in use: another program, perhaps another worker, listens there", cfg.Addr)
	case err != nil:
		return nil, cli.Exitf(cli.ExitUnavailable, "EMAIL_HTTP_ADDR: %w", err)
	}
	cfg.Logger.Info().Str("url", server.URL()).Msg("pages and metrics")
	return server, nil
}

// stopPages ends the worker's HTTP server, if there is one.
func stopPages(server *pages.Server, log zerolog.Logger) {
	if server == nil {
		return
	}
	if err := server.Close(); err != nil {
		log.Warn().Err(err).Msg("ending the pages")
	}
}

// hooked adds hooks to the smtp backends that connect makes.
func hooked(connect func(string) (mailer.Backend, error), hooks ...func(mailer string) *smtp.Hooks) func(string) (mailer.Backend, error) {
	return func(name string) (mailer.Backend, error) {
		backend, err := connect(name)
		if b, ok := outgoing.Unwrap(backend).(*smtp.Backend); ok {
			for _, h := range hooks {
				b.AddHooks(h(name))
			}
		}
		return backend, err
	}
}
