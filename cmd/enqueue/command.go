package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func newCommand(std cli.Streams) *cobra.Command {
	root := &cobra.Command{
		Use:     "enqueue",
		Short:   "Hand mail to the queue",
		Version: cli.Version(),
		Long: `Hand mail to the queue. Worker processes take it from there and deliver it.

The queue is the Redis at REDIS_URL (redis://127.0.0.1:6379/0 if not set).
"worker check" shows all settings.

Exit codes: 0 done, 64 usage, 65 a message is wrong or cannot be
cancelled, 66 a file cannot be read, 69 Redis cannot be reached, 75 try later,
78 a setting is wrong.`,
		Example: `  enqueue send --to ann@example.com --subject Hello --body "It works."
  enqueue bulk messages.jsonl
  enqueue raw -t < message.eml
  echo '{"subject": "Hello", "body": "It works.", "to": ["ann@example.com"]}' | enqueue render -
  enqueue test ann@example.com`,
	}
	app := &app{std: std}
	root.AddCommand(app.sendCommand(), app.bulkCommand(), app.rawCommand(), app.renderCommand(), app.testCommand(), app.cancelCommand(), app.deadCommand())
	addCompletions(root)
	return root
}

// app is what the subcommands share.
type app struct {
	std      cli.Streams
	settings settings.Settings
	defaults mailer.Defaults
	pouch    *mailpouch.App
}

// load reads the settings.
func (a *app) load(ctx context.Context) error {
	s, err := cli.Settings(a.std, settings.Loader{Producer: true})
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
func (a *app) queue(o tasks.Options) *tasks.Queue {
	return a.pouch.Queue.With(mailpouch.Options(a.settings, o))
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
