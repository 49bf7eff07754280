package workercli

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/metrics"
	"github.com/mailpouch/mailpouch/internal/pages"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// reloader reads the files of secrets, keys and certificates again, and gives what they say to those who use it.
type reloader struct {
	settings settings.Settings
	registry backends.Registry
	log      zerolog.Logger
	connects atomic.Pointer[func(mailer string) (mailer.Backend, error)] // of the settings as they are now

	worker  *tasks.Worker // nil if there is none
	pages   *pages.Server // likewise
	counted *metrics.Metrics
	in      *intakes
	hooks   *webhook.Dispatcher // nil if there is none
}

func newReloader(s settings.Settings, registry backends.Registry, connect func(string) (mailer.Backend, error), log zerolog.Logger) *reloader {
	r := &reloader{settings: s, registry: registry, log: log}
	r.connects.Store(&connect)
	return r
}

// connect makes a backend of the settings as they are now.
func (r *reloader) connect(name string) (mailer.Backend, error) { return (*r.connects.Load())(name) }

// watch reloads at each hang-up until stop is called, or ctx ends.
func (r *reloader) watch(ctx context.Context, hangups <-chan struct{}) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				r.reload(ctx)
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// reload uses what the files say now.
func (r *reloader) reload(ctx context.Context) {
	s, found := r.settings.Reload()
	wrong := make([]string, 0, len(found.Kept))
	for _, p := range found.Kept {
		wrong = append(wrong, p.Error())
	}
	changed, bad := r.in.reload()
	found.Changed, wrong = append(found.Changed, changed...), append(wrong, bad...)
	for _, line := range wrong {
		r.log.Error().Msg(line)
	}
	if r.pages != nil {
		r.pages.SetWrong(wrong)
	}
	r.counted.Reloaded(len(wrong), r.use(ctx, s, found))
}

// use reports whether the secrets are used. If no backend can be made of them, all goes on as before.
func (r *reloader) use(ctx context.Context, s settings.Settings, found settings.Reloaded) bool {
	if r.worker != nil {
		connect, err := r.tried(ctx, s)
		if err != nil {
			r.log.Error().Err(err).Msg("the files of secrets were read again, and are not used: all goes on as before")
			return false
		}
		r.connects.Store(&connect)
	}
	if err := reloadWebhooks(r.hooks, s); err != nil {
		r.log.Error().Err(err).Msg("webhooks go on as before")
	}
	r.settings = s
	if r.pages != nil {
		r.pages.SetAccess(s.HTTP.Password, s.HTTP.Token)
	}
	if r.worker == nil {
		r.log.Info().Strs("changed", found.Changed).Msg("files of keys, certificates and secrets read again; what the environment says takes a restart")
	} else if err := r.worker.Reconnect(); err != nil {
		r.log.Error().Err(err).Msg("the connections stay as they are")
		return true
	} else {
		r.log.Info().Strs("changed", found.Changed).Msg("files of secrets read again: each connection is replaced when its batch is through; what the environment says takes a restart")
	}
	if len(found.Restart) > 0 {
		r.log.Warn().Strs("settings", found.Restart).Msg("these have changed, which takes a restart")
	}
	return true
}

// tried makes and closes a backend of each mailer, which opens no connection, before those that work are given up.
func (r *reloader) tried(ctx context.Context, s settings.Settings) (func(string) (mailer.Backend, error), error) {
	cfg, err := mailpouch.WorkerConfig(ctx, s, r.registry)
	if err != nil {
		return nil, err
	}
	var all []error
	for _, name := range append([]string{""}, s.Mailers()...) {
		backend, err := cfg.Connect(name)
		if err == nil {
			err = backend.Close()
		}
		all = append(all, err)
	}
	return cfg.Connect, errors.Join(all...)
}
