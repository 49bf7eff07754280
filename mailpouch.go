// Package mailpouch makes the parts of a program from its settings. It is the one place that
// knows which setting ends in which field of a queue and of a worker.
//
//	app, err := mailpouch.Open(ctx) // what the environment says
//	if err != nil {
//		return err
//	}
//	defer app.Close()
//	sent, err := app.Mailer.SendMail(ctx, "Hello", "It works.", "", []string{"ann@example.org"}, nil)
//
// [Open] is all that a program needs that leaves its mail to workers. One that has read its
// settings itself, or has backends of its own, calls [New]. The command worker, which
// delivers, has its configuration from [WorkerConfig].
//
// A program that only sends over SMTP has no use for this package: backends.Builtin().Mailer
// makes a Mailer from the same settings, and links no Redis.
package mailpouch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// App is what a program hands its mail to. Its parts may be used by several goroutines.
type App struct {
	// Mailer sends with the backend of EMAIL_BACKEND, which for Open is the queue unless
	// the environment names another one.
	Mailer *mailer.Mailer

	// Queue is the queue itself, for what a Mailer has no words for, such as Cancel. Its messages wait for a worker
	// whatever EMAIL_BACKEND says.
	Queue *tasks.Queue

	// Redis is the client of Queue, for tasks.NewDeadLetters. Close closes it.
	Redis redis.UniversalClient
}

// Config is what a program adds to its settings. The zero value adds nothing.
type Config struct {
	// Registry has the backends that EMAIL_BACKEND and those of the named mailers may be:
	// backends.Builtin() if nil. The queue is added to it.
	Registry backends.Registry

	// Options are for every message, unless Mailer.With or Queue.With has others. Queue and MaxRetry,
	// where they are not set, are the settings'.
	Options mailer.Options

	Tracer tasks.Tracer // no traces if nil
}

// Open reads the environment and connects. Mail waits in the queue at REDIS_URL for a worker,
// unless EMAIL_BACKEND names another backend, such as console for development.
//
// An error names everything that is wrong with the settings, or says that Redis does not
// answer. Warnings, of a mistyped EMAIL_ variable for example, go to slog's default logger; a
// program that has one of its own calls settings.Loader and New.
func Open(ctx context.Context) (*App, error) {
	s, warnings, err := settings.Loader{Producer: true}.Load()
	for _, w := range warnings {
		slog.WarnContext(ctx, "mailpouch: "+w)
	}
	if err != nil {
		return nil, withMore(err, s)
	}
	app, err := New(ctx, s, Config{})
	if err != nil || s.Delivery.Backend != queueName {
		return app, err
	}
	if _, err := app.Queue.Open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("mailpouch: Redis %s: %w", s.Queue.RedisURL, err), app.Close())
	}
	return app, nil
}

const queueName = "queue"

// withMore adds to the problems that Load has found those of other settings that only the
// registry finds.
func withMore(err error, s settings.Settings) error {
	var problems, more settings.Problems
	registry := backends.Builtin()
	registry[queueName] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return nil, nil }} // nobody uses it
	if !errors.As(err, &problems) || !errors.As(registry.Check(s), &more) {
		return err
	}
	for _, p := range more {
		known := func(q settings.Problem) bool { return q.Name == p.Name }
		if !slices.ContainsFunc(problems, known) {
			problems = append(problems, p)
		}
	}
	return problems
}

// New makes an App of settings. It opens no connection. An error names everything that is
// wrong.
func New(ctx context.Context, s settings.Settings, cfg Config) (*App, error) {
	s.Message.Hostname = backends.Hostname(ctx, s)
	client, redisErr := tasks.Connect(s.Queue.RedisURL.Reveal())
	if redisErr != nil {
		client = nil
	}
	q := QueueConfig(s)
	q.Options, q.Tracer = Options(s, cfg.Options), cfg.Tracer
	queue := tasks.NewQueue(client, q)
	registry := maps.Clone(cfg.Registry)
	if registry == nil {
		registry = backends.Builtin()
	}
	registry[queueName] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) { return queue.Using(s.Using) }}
	mail, err := registry.Mailer(s)
	switch {
	case redisErr != nil && err != nil:
		return nil, errors.Join(redisErr, err)
	case redisErr != nil:
		return nil, redisErr
	case err != nil:
		return nil, errors.Join(err, client.Close())
	}
	return &App{Mailer: mail.With(cfg.Options), Queue: queue, Redis: client}, nil
}

// Close lets go of Redis.
func (a *App) Close() error { return a.Redis.Close() }
