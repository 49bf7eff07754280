// Command peer runs the programs that Mailpouch is compared with: the asynq workers that
// people write, and the limits that no worker can pass.
//
//	peer empty      asynq and a handler that does nothing: the limit of one asynq server
//	peer netsmtp    asynq and net/smtp over connections that stay open
//	peer gomail     asynq and wneessen/go-mail over connections that stay open
//	peer direct     no queue: our own SMTP client alone
//	peer handover   asynq's own client, which hands over and delivers nothing
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("peer", flag.ContinueOnError)
	flags.StringVar(&o.redis, "redis", "redis://127.0.0.1:6379/0", "where the tasks are")
	flags.StringVar(&o.smtp, "smtp", "127.0.0.1:25", "the mail server")
	flags.IntVar(&o.connections, "connections", 20, "connections to the mail server")
	flags.IntVar(&o.concurrency, "concurrency", 20, "tasks at once, or goroutines of handover")
	flags.DurationVar(&o.interval, "interval", 0, "how long an idle asynq waits before it looks for tasks again (0: asynq's default)")
	flags.IntVar(&o.mails, "mails", 1000, "mails of direct and handover")
	if len(args) == 0 {
		return fmt.Errorf("empty, netsmtp, gomail, direct or handover is expected")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "empty":
		return work(ctx, o, nil)
	case "netsmtp":
		return work(ctx, o, newNetSMTP(o).send)
	case "gomail":
		g, err := newGoMail(o)
		if err != nil {
			return err
		}
		return work(ctx, o, g.send)
	case "direct":
		return direct(ctx, o)
	case "handover":
		return handOver(ctx, o)
	}
	return fmt.Errorf("%q is not one of empty, netsmtp, gomail, direct, handover", args[0])
}
