// Package cli is what the two commands share: how they start, how they end, and
// which exit code says what.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// The exit codes of sysexits(3) that the commands use.
const (
	ExitNone        = 1  // nothing was found to do it to; not of sysexits
	ExitUsage       = 64 // the command line is wrong
	ExitData        = 65 // a message is wrong
	ExitNoInput     = 66 // a file cannot be read
	ExitUnavailable = 69 // Redis or the relay cannot be reached
	ExitSoftware    = 70 // anything else
	ExitTempFail    = 75 // try later
	ExitConfig      = 78 // a setting is wrong
)

// ExitError carries the exit code that an error ends the program with.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// Exit attaches an exit code to err.
func Exit(code int, err error) error { return &ExitError{Code: code, Err: err} }

// Exitf is Exit with a formatted error.
func Exitf(code int, format string, args ...any) error {
	return &ExitError{Code: code, Err: fmt.Errorf(format, args...)}
}

// reportedError is an error that was printed or logged already.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return e.err.Error() }
func (e *reportedError) Unwrap() error { return e.err }

// Reported marks err as printed or logged already: Run only uses its exit code.
func Reported(err error) error { return &reportedError{err} }

// Streams are a program's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs a command with the process's arguments and streams, and exits. Its context
// ends at the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. A SIGINT or
// SIGHUP that is ignored from the start stays so: nohup and a shell's & ask for that. A command may
// have SIGHUPs for something else (Hangups).
func Main(command func(Streams) *cobra.Command) {
	redis.SetLogger(silence{}) // what matters comes back as an error
	ends := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) { // Notify would undo that
		ends = append(ends, os.Interrupt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop)
	if !signal.Ignored(syscall.SIGHUP) {
		ctx = withHangups(ctx)
	}
	std := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(Run(ctx, command, os.Args[1:], std))
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Run runs a command and returns its exit code. Errors go to std.Err, one line each.
func Run(ctx context.Context, command func(Streams) *cobra.Command, args []string, std Streams) int {
	root := command(std)
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.RunE = func(c *cobra.Command, _ []string) error {
		fmt.Fprint(std.Err, c.UsageString())
		return Exitf(ExitUsage, "a command is expected")
	}
	root.AddCommand(manCommand(std))
	started := false // false: cobra itself refused the command line
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case !started:
		fmt.Fprintf(std.Err, "%s: %s (%s --help shows how)\n", root.Name(), Line(strings.Join(strings.Fields(err.Error()), " ")), root.Name())
		return ExitUsage
	}
	var reported *reportedError
	if errors.As(err, &reported) {
		return exitCode(err)
	}
	var problems settings.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintf(std.Err, "%s: %s\n", root.Name(), Line(p.Error()))
		}
		return ExitConfig
	}
	fmt.Fprintf(std.Err, "%s: %s\n", root.Name(), Line(err.Error()))
	return exitCode(err)
}

func exitCode(err error) int {
	var exit *ExitError
	var unknown *backends.UnknownBackendError
	var mailerName *settings.UnknownMailerError
	var using *tasks.UnknownMailerError
	var send *mailer.SendError
	var problems settings.Problems
	switch {
	case errors.As(err, &problems):
		return ExitConfig
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &unknown):
		return ExitConfig
	case errors.As(err, &mailerName), errors.As(err, &using):
		return ExitUsage
	case mailer.IsBadInput(err):
		return ExitData
	case errors.As(err, &send) && send.Class == mailer.Unavailable:
		return ExitUnavailable
	case errors.As(err, &send) && (send.Class == mailer.Temporary || send.Class == mailer.Unknown):
		return ExitTempFail
	}
	return ExitSoftware
}

// Settings loads the settings and prints what they are warned of.
func Settings(std Streams, load func() (settings.Settings, []string, error)) (settings.Settings, error) {
	s, warnings, err := load()
	for _, w := range warnings {
		fmt.Fprintln(std.Err, "warning: "+Line(w))
	}
	return s, err
}
