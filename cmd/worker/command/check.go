package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func checkCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Print every setting, then try Redis and the mail server",
		Long: `Print every setting and where it comes from, with secrets hidden. Then try Redis
and the mail server, and say in one line each what is wrong.`,
		Example: `  worker check
  EMAIL_HOST=smtp.example.com EMAIL_PORT=587 EMAIL_USE_TLS=true worker check`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return check(c.Context(), std, registry) },
	}
}

func check(ctx context.Context, std cli.Streams, registry backends.Registry) error {
	s, err := cli.Settings(std)
	printSettings(std.Out, s)
	if err != nil {
		return err
	}
	if err := s.HTTP.CheckAccess(); err != nil {
		return err
	}
	fmt.Fprintln(std.Out)
	found, err := tryRedis(ctx, s)
	redisErr := report(std.Out, "Redis", s.Queue.RedisURL.String(), err)
	for _, line := range found.Warnings {
		fmt.Fprintln(std.Out, "  warning: "+cli.Line(line))
	}
	for _, line := range found.Notes {
		fmt.Fprintln(std.Out, "  "+cli.Line(line))
	}
	ready := redisErr == nil
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		if err == nil {
			err = tryBackend(ctx, named, registry)
		}
		ready = report(std.Out, strings.TrimSpace("Backend "+name), backendAddress(named), err) == nil && ready
	}
	if !ready {
		return cli.Exit(cli.ExitUnavailable, errors.New("not ready to work"))
	}
	return nil
}

func printSettings(w io.Writer, s settings.Settings) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, setting := range settings.Describe(s) {
		fmt.Fprintf(t, "%s\t%s\t%s\n", setting.Name, cli.Line(setting.Value), setting.Source)
	}
	_ = t.Flush()
}

func report(w io.Writer, what, where string, err error) error {
	if err != nil {
		fmt.Fprintf(w, "%s %s: %s\n", what, cli.Line(where), cli.Line(err.Error()))
		return err
	}
	fmt.Fprintf(w, "%s %s: ok\n", what, cli.Line(where))
	return nil
}

func backendAddress(s settings.Settings) string {
	if s.Worker.Backend == "smtp" {
		return fmt.Sprintf("smtp at %s port %d", s.SMTP.Hosts, s.SMTP.Port)
	}
	return s.Worker.Backend
}

// patience bounds each of the two tries.
const patience = 15 * time.Second

func tryRedis(ctx context.Context, s settings.Settings) (tasks.RedisCheck, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := tasks.Connect(s.Queue.RedisURL.Reveal())
	if err != nil {
		return tasks.RedisCheck{}, err
	}
	defer func() { _ = client.Close() }()
	return tasks.CheckRedis(ctx, client)
}

func tryBackend(ctx context.Context, s settings.Settings, registry backends.Registry) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	backend, err := registry.New(s.Worker.Backend, s)
	if err != nil {
		return err
	}
	_, err = backend.Open(ctx)
	return errors.Join(err, backend.Close())
}
