package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// app is what the subcommands share.
type app struct {
	std      cli.Streams
	settings settings.Settings
	defaults mailer.Defaults
	redis    redis.UniversalClient
	base     *tasks.Queue
}

// load reads the settings.
func (a *app) load(ctx context.Context) error {
	s, err := cli.Settings(a.std)
	if err != nil {
		return err
	}
	s.Message.Hostname = backends.Hostname(ctx, s)
	a.settings, a.defaults = s, backends.Defaults(s)
	return nil
}

// connect reads the settings and prepares the queue. close lets go of Redis.
func (a *app) connect(ctx context.Context) error {
	if err := a.load(ctx); err != nil {
		return err
	}
	client, err := tasks.Connect(a.settings.Queue.RedisURL.Reveal())
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	a.redis = client
	q := a.settings.Queue
	a.base = tasks.NewQueue(client, tasks.QueueConfig{
		Defaults: a.defaults, TaskTimeout: q.TaskTimeout, IdempotencyWindow: q.IdempotencyWindow, Mailers: a.settings.Mailers(),
		AttachmentThreshold: q.AttachmentThreshold.OrNever(), MaxMessageSize: int(q.MaxMessageSize),
		MassSize: q.MassSize, Shards: q.Shards,
	})
	return nil
}

func (a *app) close() { _ = a.redis.Close() }

// queue returns the queue with the given options; what they leave open is as configured.
func (a *app) queue(o tasks.Options) *tasks.Queue {
	o.Queue = cmp.Or(o.Queue, a.settings.Queue.Name)
	if o.MaxRetry == nil {
		o.MaxRetry = new(a.settings.Queue.MaxRetry)
	}
	return a.base.With(o)
}

// openInput opens a file, or standard input for "-".
func (a *app) openInput(name string) (io.ReadCloser, error) {
	if name == "-" {
		if f, ok := a.std.In.(*os.File); ok {
			return f, nil
		}
		return io.NopCloser(a.std.In), nil
	}
	f, err := os.Open(name) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, cli.Exit(cli.ExitNoInput, err)
	}
	return f, nil
}

func (a *app) readInput(name string) (string, error) {
	f, err := a.openInput(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(f)
	if err != nil {
		return "", cli.Exit(cli.ExitNoInput, fmt.Errorf("%s: %w", name, err))
	}
	return string(data), nil
}

// handedOver gives the errors of a key the exit code of a wrong message.
func handedOver(id string, err error) (string, error) {
	var other *tasks.IdempotencyError
	var dead *tasks.DeadLetterError
	if errors.As(err, &other) {
		return "", cli.Exit(cli.ExitData, other)
	}
	if errors.As(err, &dead) {
		return "", cli.Exit(cli.ExitData, dead)
	}
	return id, err
}
