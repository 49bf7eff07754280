package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mailpouch/mailpouch"
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
	pouch    *mailpouch.App
}

// load reads the settings.
func (a *app) load(ctx context.Context) error {
	s, err := cli.Settings(a.std, settings.Loader{Producer: true}.Load)
	if err != nil {
		return err
	}
	s.Message.Hostname = backends.Hostname(ctx, s)
	s.Delivery.Backend = "queue" // whatever other programs do
	a.settings, a.defaults = s, backends.Defaults(s)
	return nil
}

// connect reads the settings and prepares the queue. close lets go of Redis.
func (a *app) connect(ctx context.Context) error {
	if err := a.load(ctx); err != nil {
		return err
	}
	pouch, err := mailpouch.New(ctx, a.settings, mailpouch.Config{})
	if err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	a.pouch = pouch
	return nil
}

func (a *app) close() { _ = a.pouch.Close() }

// queue returns the queue with the given options; what they leave open is as configured.
func (a *app) queue(o mailer.Options) *tasks.Queue {
	return a.pouch.Queue.With(o)
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

// handedOver gives the errors of an idempotency key the exit code of a wrong message.
func handedOver(id string, err error) (string, error) {
	if other, ok := errors.AsType[*mailer.IdempotencyError](err); ok {
		return "", cli.Exit(cli.ExitData, other)
	}
	if dead, ok := errors.AsType[*mailer.DeadLetterError](err); ok {
		return "", cli.Exit(cli.ExitData, dead)
	}
	return id, err
}
