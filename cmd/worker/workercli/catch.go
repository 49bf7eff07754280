package workercli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/internal/inbox"
	"github.com/mailpouch/mailpouch/settings"
)

// catchFlags are the flags of catch.
type catchFlags struct {
	addr, http string
	hosts      []string
	keep       int
	keepBytes  string
	quiet      bool
}

func catchCommand(std cli.Streams) *cobra.Command {
	var f catchFlags
	c := &cobra.Command{
		Use:   "catch",
		Short: "A mail server that prints and shows what it gets, for development",
		Long: `A mail server for development. It takes every mail and every login, prints the mail,
decoded for people, and delivers nothing. It is the twin of Python's
"python -m smtpd -n -c DebuggingServer localhost:1025".

With --http it shows the mail in a browser too: HTML with its pictures, attachments,
source, search. Nothing of a mail runs or is loaded from elsewhere; pictures from other
servers only if you ask for them. The same is there for tests, as JSON:

  GET    /api/messages?q=to:ann@example.com&wait=10s   the newest first; wait for one
  GET    /api/messages/7    GET /api/messages/latest   texts, header, list of parts
  GET    /api/messages/7/source   /api/messages/7/parts/2
  DELETE /api/messages/7    DELETE /api/messages       one, or all (or those of ?q=)

The mail is in memory: the last --keep messages, of --keep-bytes together.`,
		Example: `  worker catch
  worker catch --http localhost:8080
  worker catch --addr 0.0.0.0:1025 --http 0.0.0.0:8080 --http-host mail --quiet
  EMAIL_HOST=localhost EMAIL_PORT=1025 worker run     (in another terminal)
  curl 'localhost:8080/api/messages/latest?q=subject:welcome&wait=10s'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return catch(c.Context(), std, f) },
	}
	c.Flags().StringVar(&f.addr, "addr", "localhost:1025", "`host:port` to listen on")
	c.Flags().StringVar(&f.http, "http", "", "`host:port` of the page and its API")
	c.Flags().StringSliceVar(&f.hosts, "http-host", nil, "another `name` by which browsers and tests reach the page; localhost and IP addresses always work")
	c.Flags().IntVar(&f.keep, "keep", 1000, "how many messages the page keeps: the last ones")
	c.Flags().StringVar(&f.keepBytes, "keep-bytes", "64MB", "the most that they have together; a bigger message is taken and not kept")
	c.Flags().BoolVar(&f.quiet, "quiet", false, "print no mail")
	return c
}

// config checks the flags.
func (f catchFlags) config() (catcher.Config, error) {
	cfg := catcher.Config{Addr: f.addr, MaxKeep: -1, Login: func(string, string) error { return nil }}
	if err := checkHostPort("--addr", f.addr); err != nil {
		return cfg, err
	}
	if f.http == "" {
		return cfg, nil
	}
	if err := checkHostPort("--http", f.http); err != nil {
		return cfg, err
	}
	for _, name := range f.hosts {
		if !hostname.IsASCII(name) {
			return cfg, cli.Exitf(cli.ExitUsage, "--http-host %q: the name of a host is expected, without a port", name)
		}
	}
	if f.keep < 1 {
		return cfg, cli.Exitf(cli.ExitUsage, "--keep %d: at least one message is expected", f.keep)
	}
	var size settings.Size
	if err := size.UnmarshalText([]byte(f.keepBytes)); err != nil {
		return cfg, cli.Exitf(cli.ExitUsage, "--keep-bytes: %w", err)
	}
	if size < 1 {
		return cfg, cli.Exitf(cli.ExitUsage, "--keep-bytes %s: at least one byte is expected, such as 64MB", f.keepBytes)
	}
	cfg.MaxKeep, cfg.MaxKeepBytes = f.keep, int(size)
	return cfg, nil
}

func checkHostPort(flag, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return cli.Exitf(cli.ExitUsage, "%s %q: host:port is expected", flag, addr)
	}
	return nil
}

func catch(ctx context.Context, std cli.Streams, f catchFlags) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	failed := make(chan error, 2) // when nobody reads what is printed any more, or the page has ended
	cfg.OnMessage = func(m catcher.Message) {
		if f.quiet {
			return
		}
		if err := catcher.Print(std.Out, m); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	server, err := catcher.Start(cfg)
	if err != nil {
		return listenError("--addr", f.addr, err)
	}
	page, err := f.startPage(server, failed)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Fprintf(std.Err, "catching mail on %s (Ctrl-C ends it)\n", server.Addr())
	if f.http != "" {
		fmt.Fprintf(std.Err, "showing it at %s\n", page.url)
	}
	if host, _, _ := net.SplitHostPort(page.addr); f.http != "" && hostname.IsRemote(host) {
		fmt.Fprintf(std.Err, "warning: other machines can reach %s, and read and delete the mail: it asks for no password\n", page.addr)
	}
	select {
	case <-ctx.Done():
		return errors.Join(server.Close(), page.close())
	case err := <-failed:
		return errors.Join(err, server.Close(), page.close())
	}
}

// listenError says which flag to change.
func listenError(flag, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Exitf(cli.ExitUnavailable, "%s is in use: another program listens there (%s chooses another port)", addr, flag)
	}
	return cli.Exit(cli.ExitUnavailable, err)
}

// mailPage is the page of what is caught.
type mailPage struct {
	addr, url string
	close     func() error
}

// Limits of the page's server. What it sends may take long: an event comes when there is mail.
const (
	pageHeaderTimeout = 10 * time.Second
	pageIdleTimeout   = 2 * time.Minute
)

// startPage starts the page, if there is to be one. It has to be closed after the mail server, which ends what waits for mail.
func (f catchFlags) startPage(server *catcher.Server, failed chan<- error) (mailPage, error) {
	if f.http == "" {
		return mailPage{close: func() error { return nil }}, nil
	}
	l, err := net.Listen("tcp", f.http)
	if err != nil {
		return mailPage{}, listenError("--http", f.http, err)
	}
	names := make([]string, len(f.hosts))
	for i, name := range f.hosts {
		names[i] = strings.ToLower(name)
	}
	web := &http.Server{Handler: inbox.New(server, names...), ReadHeaderTimeout: pageHeaderTimeout, IdleTimeout: pageIdleTimeout}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return mailPage{addr: l.Addr().String(), url: "http://" + pageHost(l.Addr().String()), close: func() error {
		err := web.Close()
		<-ended
		return err
	}}, nil
}

// pageHost is an address as a browser of this machine takes it.
func pageHost(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port) + "/"
}
