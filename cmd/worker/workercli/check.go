package workercli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/tlsprobe"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func checkCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Print the settings, then try Redis and the mail server",
		Long: `Print every setting that is changed and where it comes from, with secrets hidden.
Then try Redis and the mail server, and say in one line each what is wrong, and which
setting to change. The mail server is asked whether it takes mail from
DEFAULT_FROM_EMAIL and SERVER_EMAIL, and is sent none; what it thinks of a recipient
shows "enqueue test". If mail is signed (DKIM), the DNS is asked for the keys' records.
With EMAIL_OAUTH a token is asked for before the login. Where other programs hand mail
in, the file of keys and the certificates are read, and the ports tried; where events
are posted, the names of the endpoints are looked up, and nothing is posted.`,
		Example: `  worker check
  worker check --all
  EMAIL_HOST=smtp.example.com EMAIL_PORT=587 EMAIL_USE_TLS=true worker check`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return check(c.Context(), std, registry, all) },
	}
	c.Flags().BoolVar(&all, "all", false, "print the settings that are not changed too")
	return c
}

func check(ctx context.Context, std cli.Streams, registry backends.Registry, all bool) error {
	s, err := cli.Settings(std, registry.Load)
	printSettings(std.Out, s, all)
	if err != nil {
		return err
	}
	if err := s.CheckWorker(); err != nil {
		return err
	}
	printWarnings(std.Out, settingWarnings(ctx, s, registry))
	fmt.Fprintln(std.Out)
	found, err := tryRedis(ctx, s)
	err = cmp.Or(err, found.Refuses)
	redisErr := report(std.Out, "Redis", s.Queue.RedisURL.String(), err)
	printWarnings(std.Out, found.Warnings)
	for _, line := range found.Notes {
		fmt.Fprintln(std.Out, "  "+cli.Line(line))
	}
	ready := redisErr == nil
	if ready {
		printWarnings(std.Out, queueWarnings(ctx, s))
		printWarnings(std.Out, rateWarnings(ctx, s))
	}
	for _, name := range append([]string{""}, s.Mailers()...) {
		var warnings []string
		named, err := s.Named(name)
		if members, _ := named.Failover(); err == nil && len(members) > 0 {
			fmt.Fprintln(std.Out, strings.TrimSpace("Backend "+name)+" "+cli.Line(backendAddress(named)))
			continue // each member has a line of its own
		}
		if err == nil {
			warnings, err = tryBackend(ctx, named, registry)
		}
		ready = report(std.Out, strings.TrimSpace("Backend "+name), backendAddress(named), err) == nil && ready
		printWarnings(std.Out, warnings)
	}
	ready = reportKeys(ctx, std.Out, net.DefaultResolver, s) && ready
	for _, t := range checkIntake(ctx, net.DefaultResolver, s) {
		ready = report(std.Out, t.what, t.where, t.err) == nil && ready
		printWarnings(std.Out, t.warnings)
	}
	if !ready {
		return cli.Exit(cli.ExitUnavailable, errors.New("not ready to work"))
	}
	return nil
}

// reportKeys prints what there is to say of the keys that sign, and reports whether all are well.
func reportKeys(ctx context.Context, w io.Writer, dns *net.Resolver, s settings.Settings) bool {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	good := true
	for _, k := range checkKeys(ctx, dns, s) {
		good = report(w, "DKIM", k.name, k.err) == nil && good
		printWarnings(w, k.warnings)
	}
	return good
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
	if members, weighted := s.Failover(); len(members) > 0 {
		how := "the first that takes mail of "
		if weighted {
			how = "by weights "
		}
		return "failover: " + how + members.String()
	}
	return s.Worker.Backend
}

// tryRedis also looks who else uses it.
func tryRedis(ctx context.Context, s settings.Settings) (redisconn.CheckResult, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	client, err := redisconn.Connect(s.Queue.RedisURL.Reveal())
	if err != nil {
		return redisconn.CheckResult{}, err
	}
	defer func() { _ = client.Close() }()
	if err := redisconn.TryTLS(ctx, s.Queue.RedisURL.Reveal()); err != nil {
		return redisconn.CheckResult{}, err
	}
	found, err := redisconn.Check(ctx, client)
	if err != nil {
		return found, err
	}
	neighbours, err := queuestats.Neighbours(ctx, client)
	if err != nil { // it may not be allowed to look, and works all the same
		found.Notes = append(found.Notes, "whether other programs use asynq there could not be seen: "+err.Error())
	}
	found.Warnings = append(found.Warnings, neighbours...)
	return found, nil
}

// tryBackend connects, and asks whether mail from our senders is taken.
func tryBackend(ctx context.Context, s settings.Settings, registry backends.Registry) (warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	backend, err := registry.New(s.Worker.Backend, s)
	if err != nil {
		return nil, err
	}
	if err = tryToken(ctx, backend); err == nil {
		err = open(ctx, backend, s)
	}
	if err == nil {
		warnings, err = trySenders(ctx, backend, s)
	} else {
		err = loginError(s, err)
	}
	return warnings, errors.Join(err, backend.Close())
}

// silence is how long a relay may say nothing before it is asked whether it waits for TLS.
const silence = 3 * time.Second

// open opens the backend. A relay that waits for TLS, while we wait for its greeting, is found out before the time is up.
func open(ctx context.Context, backend mailer.Backend, s settings.Settings) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var waits error
	asked := make(chan struct{})
	ask := time.AfterFunc(silence, func() {
		defer close(asked)
		if waits = waitsForTLS(ctx, s); waits != nil {
			cancel()
		}
	})
	_, err := backend.Open(ctx)
	if err == nil {
		cancel()
	}
	if !ask.Stop() {
		<-asked
	}
	if err != nil && waits != nil {
		return waits
	}
	return silentError(s, err)
}

// silentError says what to look at where nobody has said anything: neither a greeting nor, with TLS at once, the beginning of a handshake.
func silentError(s settings.Settings, err error) error {
	var silent *mailer.SendError
	if !errors.As(err, &silent) || !errors.Is(err, context.DeadlineExceeded) || silent.Step != mailer.StepGreet && (silent.Step != mailer.StepTLS || !s.SMTP.UseSSL) {
		return err
	}
	return fmt.Errorf("nothing there speaks SMTP, or it is slow: look at %s and %s: %w", s.Variable("EMAIL_HOST"), s.Variable("EMAIL_PORT"), err)
}

// waitsForTLS asks the relays whether they speak TLS from the first byte, where the settings do not say so.
func waitsForTLS(ctx context.Context, s settings.Settings) error {
	if s.Worker.Backend != "smtp" || s.SMTP.UseSSL {
		return nil
	}
	for _, host := range s.SMTP.Hosts {
		addr := net.JoinHostPort(host, strconv.Itoa(s.SMTP.Port))
		var d net.Dialer
		if tlsprobe.SpeaksTLS(ctx, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }) {
			return fmt.Errorf("the server at %s says nothing, but speaks TLS at once: use %s, and not %s, or the port for STARTTLS (587)",
				addr, s.Variable("EMAIL_USE_SSL"), s.Variable("EMAIL_USE_TLS"))
		}
	}
	return nil
}

// senderTrier is a backend that can ask the server whether it accepts a sender, without
// sending anything.
type senderTrier interface {
	TrySender(ctx context.Context, from string) error
}

// trySenders asks for the senders that are set here. If none is set, producers name their
// own, and then a refusal of Django's default sender at localhost is only a warning.
func trySenders(ctx context.Context, backend mailer.Backend, s settings.Settings) (warnings []string, err error) {
	b, ok := outgoing.Unwrap(backend).(senderTrier)
	if !ok {
		return nil, nil
	}
	set := sendersSet(s)
	for _, from := range set {
		if err := b.TrySender(ctx, from.address); err != nil {
			return nil, senderError(s, from.variable, err)
		}
	}
	if len(set) > 0 {
		return nil, nil
	}
	err = b.TrySender(ctx, s.Message.DefaultFrom)
	var refused *mailer.SendError
	if errors.As(err, &refused) && refused.Step == mailer.StepMail && refused.Class != mailer.Unavailable {
		return []string{"DEFAULT_FROM_EMAIL is not set, and the server takes no mail from " + s.Message.DefaultFrom + ": " + err.Error()}, nil
	}
	return nil, senderError(s, "DEFAULT_FROM_EMAIL", err)
}

// The replies of a server that requires a login or TLS before it takes mail from anybody
// (RFC 4954, 6; RFC 3207, 4).
const (
	replyWantsLogin  = 530
	replyWeakLogin   = 534
	replyBadLogin    = 535
	replyWantsTLS    = 538
	replyUnavailable = 421
)

// loginError says what to do about a server that offers a login without TLS and takes none.
func loginError(s settings.Settings, err error) error {
	var refused *mailer.SendError
	if hint := tokenHint(s, err); hint != "" {
		return fmt.Errorf("%s: %w", hint, err)
	}
	if errors.As(err, &refused) && refused.Step == mailer.StepAuth && (refused.Code == replyWantsLogin || refused.Code == replyWantsTLS) && !s.SMTP.UseTLS && !s.SMTP.UseSSL {
		return fmt.Errorf("the relay wants TLS before the login: set %s: %w", s.Variable("EMAIL_USE_TLS"), err)
	}
	return err
}

// senderError says what to do about a server that does not take mail from a sender.
func senderError(s settings.Settings, variable string, err error) error {
	var refused *mailer.SendError
	if !errors.As(err, &refused) || refused.Step != mailer.StepMail || refused.Code == 0 {
		return err
	}
	login := s.Variable("EMAIL_HOST_USER") + " and " + s.Variable("EMAIL_HOST_PASSWORD")
	secure := s.SMTP.UseTLS || s.SMTP.UseSSL
	switch refused.Code {
	case replyWantsLogin, replyWeakLogin, replyBadLogin, replyWantsTLS:
		switch {
		case !secure && (refused.Code == replyWantsTLS || strings.Contains(strings.ToUpper(refused.Text), "STARTTLS")):
			return fmt.Errorf("the relay wants TLS: set %s: %w", s.Variable("EMAIL_USE_TLS"), err)
		case s.SMTP.User != "":
			return fmt.Errorf("the relay takes no mail from us though we have logged in: see whether %s may send: %w", s.SMTP.User, err)
		case secure:
			return fmt.Errorf("the relay wants a login: set %s: %w", login, err)
		}
		return fmt.Errorf("the relay wants a login, or TLS: set %s, or %s: %w", login, s.Variable("EMAIL_USE_TLS"), err)
	case replyUnavailable:
		return err
	}
	return fmt.Errorf("the relay does not take mail from the address in %s: %w", variable, err)
}

func printWarnings(w io.Writer, warnings []string) {
	for _, line := range warnings {
		fmt.Fprintln(w, "  warning: "+cli.Line(line))
	}
}
