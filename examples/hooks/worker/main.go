// Command worker is Mailpouch's worker with the hooks of this example:
//
//	SUPPRESSED=suppressed.txt BOOKS=books.jsonl EMAIL_HOST=smtp.example.com worker run
package main

import (
	"fmt"
	"os"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/hooks"
	"github.com/mailpouch/mailpouch/tasks"
)

func main() {
	configure, err := configured(os.Getenv("SUPPRESSED"), os.Getenv("BOOKS"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workercli.Main(backends.Builtin(), configure)
}

// configured adds the hooks to a worker. The files are read, and written, by these names.
func configured(suppressed, books string) (func(*tasks.WorkerConfig), error) {
	list, err := readSuppressed(suppressed)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(books, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	return func(cfg *tasks.WorkerConfig) {
		cfg.BeforeSend = append(cfg.BeforeSend, list, hooks.System("shop"))
		cfg.Observers = append(cfg.Observers, tasks.Observer{Outcome: hooks.NewBooks(out).Outcome})
	}, nil
}

func readSuppressed(name string) (hooks.Suppressed, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return hooks.ReadSuppressed(file)
}
