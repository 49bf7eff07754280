// Command web is all of Mailpouch in one process, to be clicked through: the contact form,
// the worker with its pages, a Redis, and a mail server that shows what it gets and
// delivers nothing. It needs nothing else and reaches nobody.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/contact/site"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/embedded"
	"github.com/mailpouch/mailpouch/internal/inbox"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	if err := run(ctx, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

// run starts everything, says where it is, and ends it when ctx ends: first what takes
// mail, then the worker, then what these two need.
func run(ctx context.Context, out, log io.Writer) error {
	store, err := embedded.Start("")
	if err != nil {
		return err
	}
	defer store.Close()
	caught, err := catcher.Start(catcher.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = caught.Close() }()
	form, app, err := newForm(ctx, store.URL(), log)
	if err != nil {
		return err
	}
	defer func() { _ = app.Close() }()
	addrs, err := listen("127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8025")
	if err != nil {
		return err
	}
	pages := addrs[2].Addr().String()
	_ = addrs[2].Close() // the worker listens there itself
	if err := setEnvironment(store.URL(), caught.Addr(), pages); err != nil {
		return err
	}
	say(out, addrs[0].Addr().String(), addrs[1].Addr().String(), pages, store.URL())
	return together(ctx,
		func(ctx context.Context) error { return serve(ctx, addrs[0], form) },
		func(ctx context.Context) error { return serve(ctx, addrs[1], inbox.New(caught)) },
		func(ctx context.Context) error {
			if code := workercli.Run(ctx, backends.Builtin(), []string{"run"}, out, log); code != 0 {
				return fmt.Errorf("the worker ended with exit code %d", code)
			}
			return nil
		},
	)
}

func say(out io.Writer, form, caught, pages, redisURL string) {
	fmt.Fprintf(out, "Mailpouch in one process. No mail leaves this machine.\n\n")
	for _, line := range [][2]string{
		{form + "/contact/", "the contact form: write to us"},
		{caught + "/", "the mail that comes of it"},
		{pages + "/", "the worker that sends it; monitor/ shows the queue"},
	} {
		fmt.Fprintf(out, "  http://%-25s  %s\n", line[0], line[1])
	}
	fmt.Fprintf(out, `
More mail, from a second terminal:

  REDIS_URL=%s go run ./cmd/enqueue send --to you@example.com --subject Hello --body "It works."

Ctrl-C ends it.

`, redisURL)
}

// newForm is the contact form on a queue in that Redis, and what it hands its mail to.
func newForm(ctx context.Context, redisURL string, log io.Writer) (http.Handler, *mailpouch.App, error) {
	url, err := settings.NewURL(redisURL)
	if err != nil {
		return nil, nil, err
	}
	s := settings.Default()
	s.Delivery.Backend, s.Queue.RedisURL = "queue", url
	s.Message.DefaultFrom, s.Message.ServerEmail, s.Message.Hostname = "Shop <hello@shop.example>", "Website <www@shop.example>", "shop.example"
	s.Message.SubjectPrefix, s.Message.Admins = "[Shop] ", settings.Addresses{"Ann <ann@shop.example>"}
	app, err := mailpouch.New(ctx, s, mailpouch.Config{Options: tasks.Options{Unique: 24 * time.Hour}})
	if err != nil {
		return nil, nil, err
	}
	return site.New(app.Mailer, s.Message, slog.New(slog.NewTextHandler(log, nil))), app, nil
}

// setEnvironment says to the worker what it is to use. Nothing of the person's own settings
// stays: they may name a real mail server.
func setEnvironment(redisURL, smtpAddr, pages string) error {
	for _, s := range settings.Describe(settings.Default()) {
		if err := os.Unsetenv(s.Name); err != nil {
			return err
		}
	}
	host, port, err := net.SplitHostPort(smtpAddr)
	for name, value := range map[string]string{
		"REDIS_URL": redisURL, "EMAIL_HOST": host, "EMAIL_PORT": port, "EMAIL_HOSTNAME": "worker.shop.example",
		"LOG_FORMAT": "console", "EMAIL_HTTP_ADDR": pages, "EMAIL_HTTP_SHOW_ADDRESSES": "true", "EMAIL_HTTP_ALLOW_WRITE": "true",
	} {
		err = errors.Join(err, os.Setenv(name, value))
	}
	return err
}

// listen takes each address, or a free port of the same host where somebody else has it.
func listen(addrs ...string) ([]net.Listener, error) {
	var all []net.Listener
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			for _, l := range all {
				_ = l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// together runs the parts until all have ended. One that ends, ends the others.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			defer cancel()
			errs[i] = part(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serve answers requests until ctx ends, and then cuts off those that wait for more mail.
func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
