// Package workercli is the worker's command line. A program that has a backend of its
// own calls [Main] with a registry that holds it, and is a worker like any other. So is one with hooks, which it adds to the
// worker's configuration.
package workercli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/tasks"
)

// Main runs the command line of the process and exits. EMAIL_QUEUE_BACKEND names the
// backend in the registry that delivers. configure adds to the configuration of the worker that "run" starts, which has all that
// the settings say: hooks, observers.
func Main(registry backends.Registry, configure ...func(*tasks.WorkerConfig)) {
	cli.Main(func(std cli.Streams) *cobra.Command { return newCommand(std, registry, configure...) })
}

// Run runs a command line of the worker, such as "run", in a program that does more, and
// returns its exit code. The end of ctx is its SIGTERM. Settings come from the environment
// of the process.
func Run(ctx context.Context, registry backends.Registry, args []string, stdout, stderr io.Writer, configure ...func(*tasks.WorkerConfig)) int {
	command := func(std cli.Streams) *cobra.Command { return newCommand(std, registry, configure...) }
	return cli.Run(ctx, command, args, cli.Streams{In: strings.NewReader(""), Out: stdout, Err: stderr})
}

func newCommand(std cli.Streams, registry backends.Registry, configure ...func(*tasks.WorkerConfig)) *cobra.Command {
	root := &cobra.Command{
		Use:     "worker",
		Short:   "Take mail from the queue and deliver it",
		Version: cli.Version(),
		Long: `Take mail from the queue and deliver it. Start as many workers as you like, on as
many machines: they share the queue.

Exit codes: 0 done, 64 usage, 69 Redis or the mail server cannot be reached,
78 a setting is wrong.`,
		Example: `  worker check
  EMAIL_HOST=smtp.example.com EMAIL_PORT=587 EMAIL_USE_TLS=true worker run
  worker demo`,
	}
	root.AddCommand(runCommand(std, registry, configure), checkCommand(std, registry), dkimCommand(std, registry), demoCommand(std), catchCommand(std), intakeCommand(std, registry), healthCommand(std, registry), reloadCommand(std), oauthCommand(std, registry), keyCommand(std, registry))
	return root
}
