// Command contact is a contact form: a small web application whose mail is sent in
// the background. Its settings are those of Mailpouch:
//
//	REDIS_URL=redis://localhost:6379/0 ADMINS=ann@example.com contact
//
// and a worker delivers. With EMAIL_BACKEND=console it prints its mail instead. This file
// wires; the site itself is in the package site.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/examples/contact/site"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "contact:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It writes its log to w.
func run(ctx context.Context, args []string, w io.Writer) error {
	flags := flag.NewFlagSet("contact", flag.ContinueOnError)
	flags.SetOutput(w)
	addr := flags.String("addr", cmp.Or(os.Getenv("CONTACT_ADDR"), "127.0.0.1:8000"), "listen on this `host:port`; CONTACT_ADDR sets it too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, warnings, err := settings.Loader{Producer: true}.Load()
	log := newLogger(w, s.Log)
	for _, text := range warnings {
		log.Warn(text)
	}
	if err != nil {
		return err
	}
	if len(s.Message.Admins) == 0 {
		return errors.New("ADMINS is not set: nobody would get the messages")
	}
	// A visitor who presses the button twice sends one message. And nobody can use the form
	// to send our confirmation to somebody again and again.
	once := tasks.Options{Unique: 24 * time.Hour}
	app, err := mailpouch.New(ctx, s, mailpouch.Config{Options: once})
	if err != nil {
		return err
	}
	defer func() { _ = app.Close() }()
	return serve(ctx, *addr, site.New(app.Mailer, s.Message, log), log)
}

// newLogger writes what LOG_LEVEL and LOG_FORMAT say.
func newLogger(w io.Writer, s settings.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if level := slog.LevelInfo; level.UnmarshalText([]byte(s.Level)) == nil { // slog has no trace
		o.Level = level
	}
	if s.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// serve answers requests until ctx ends, and then those that it has begun.
func serve(ctx context.Context, addr string, handler http.Handler, log *slog.Logger) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Info("contact: listening", "url", "http://"+listener.Addr().String()+"/contact/")
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = server.Shutdown(grace)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
