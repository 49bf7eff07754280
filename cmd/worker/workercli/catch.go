package workercli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/cli"
)

func catchCommand(std cli.Streams) *cobra.Command {
	var addr string
	c := &cobra.Command{
		Use:   "catch",
		Short: "A mail server that prints what it gets, for development",
		Long: `A mail server for development. It takes every mail, prints it, decoded for people,
and delivers nothing. It is the twin of Python's
"python -m smtpd -n -c DebuggingServer localhost:1025".`,
		Example: `  worker catch
  worker catch --addr 127.0.0.1:2525
  EMAIL_HOST=localhost EMAIL_PORT=1025 worker run     (in another terminal)`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return catch(c.Context(), std, addr) },
	}
	c.Flags().StringVar(&addr, "addr", "localhost:1025", "`host:port` to listen on")
	return c
}

func catch(ctx context.Context, std cli.Streams, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return cli.Exitf(cli.ExitUsage, "--addr %q: host:port is expected", addr)
	}
	failed := make(chan error, 1) // when nobody reads what is printed any more
	server, err := catcher.Start(catcher.Config{
		Addr: addr, MaxKeep: -1,
		OnMessage: func(m catcher.Message) {
			if err := catcher.Print(std.Out, m); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		},
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Exitf(cli.ExitUnavailable, "%s is in use: another program listens there (--addr chooses another port)", addr)
	}
	if err != nil {
		return cli.Exit(cli.ExitUnavailable, err)
	}
	fmt.Fprintf(std.Err, "catching mail on %s (Ctrl-C ends it)\n", server.Addr())
	select {
	case <-ctx.Done():
		return server.Close()
	case err := <-failed:
		return errors.Join(err, server.Close())
	}
}
