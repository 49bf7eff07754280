package workercli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
)

func reloadCommand(std cli.Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "reload PID",
		Short: "Make a worker on this machine read its secrets again",
		Long: `Send SIGHUP to the worker with that process ID: it reads the files of secrets again
(EMAIL_HOST_PASSWORD_FILE and the like) and logs in anew. It is for containers, whose
image has no other program that could send a signal; the worker is process 1 there.
What came of it is in the worker's log.

Exit codes: 0 sent, 64 usage, 69 there is no such worker.`,
		Example: `  worker reload 1
  kubectl exec deploy/mailpouch-worker -- /usr/local/bin/worker reload 1`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := strconv.Atoi(args[0])
			if err != nil || pid < 1 {
				return cli.Exitf(cli.ExitUsage, "%q is not a process ID", args[0])
			}
			if err := reload(pid); err != nil {
				return cli.Exitf(cli.ExitUnavailable, "process %d: %w", pid, err)
			}
			fmt.Fprintf(std.Out, "asked process %d to read its secrets again\n", pid)
			return nil
		},
	}
}

// reload sends SIGHUP to a process that runs the same program. It would end most others.
func reload(pid int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if other, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(other) != filepath.Base(self) {
		return fmt.Errorf("it is no worker, but %s", other)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Signal(syscall.SIGHUP)
}
