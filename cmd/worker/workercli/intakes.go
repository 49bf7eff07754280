package workercli

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/certfile"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/intakeconfig"
	"github.com/mailpouch/mailpouch/internal/metrics"
	"github.com/mailpouch/mailpouch/internal/pages"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// intakes are the ways in by which a process takes mail from other programs. The zero value has none.
type intakes struct {
	log       zerolog.Logger
	client    redis.UniversalClient
	submitter *intake.Submitter
	keysFile  string       // "" if there is none
	keys      []intake.Key // that it had when it was read last
	certs     []cert
	smtp      *smtpd.Server // nil if there is none
	api       *apiServer    // likewise
}

// cert is a certificate, and the setting that names its file.
type cert struct {
	*certfile.Certificate

	variable string
}

// startIntakes starts what the settings have.
func startIntakes(ctx context.Context, s settings.Settings, state *pages.State, counted *metrics.Metrics, log zerolog.Logger) (*intakes, error) {
	i := &intakes{log: log, keysFile: s.Intake.KeysFile}
	if !s.Intake.On() {
		return i, nil
	}
	s.Message.Hostname = backends.Hostname(ctx, s)
	keys, err := readKeys(s.Intake.KeysFile)
	if err != nil {
		return nil, err
	}
	client, err := tasks.Connect(s.Queue.RedisURL.Reveal())
	if err != nil {
		return nil, cli.Exit(cli.ExitConfig, err)
	}
	i.client, i.keys = client, keys.All()
	i.submitter = intake.New(client, tasks.NewQueue(client, mailpouch.QueueConfig(s)), keys)
	if err = i.startSMTP(s, state, counted); err == nil {
		err = i.startAPI(ctx, s, state, counted)
	}
	if err != nil {
		if i.smtp != nil {
			err = errors.Join(err, i.smtp.Shutdown(ctx))
		}
		return nil, errors.Join(err, client.Close())
	}
	return i, nil
}

// readKeys reads the file of keys; without one there are none.
func readKeys(path string) (*intake.Keys, error) {
	if path == "" {
		return new(intake.Keys), nil
	}
	keys, err := intake.ReadKeysFile(path)
	if err != nil {
		return nil, cli.Exitf(cli.ExitConfig, "%s: %w", settings.KeysFileVariable, err)
	}
	return keys, nil
}

// cert reads a certificate, which is read again with the others; nil if there is none.
func (i *intakes) cert(variable, certFile, keyFile string) (*certfile.Certificate, error) {
	if certFile == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	c, err := certfile.Read(certFile, keyFile)
	if err != nil {
		return nil, cli.Exitf(cli.ExitConfig, "%s: %w", variable, err)
	}
	i.certs = append(i.certs, cert{c, variable})
	i.warn(c)
	return c, nil
}

// expirySoon is how long before its end a certificate is warned of.
const expirySoon = 14 * 24 * time.Hour

func (i *intakes) warn(c *certfile.Certificate) {
	if w := c.Warning(expirySoon); w != "" {
		i.log.Warn().Msg(w)
	}
}

func (i *intakes) startSMTP(s settings.Settings, state *pages.State, counted *metrics.Metrics) error {
	if len(s.Intake.Submission) == 0 {
		return nil
	}
	cfg := intakeconfig.SMTP(s)
	c, err := i.cert("EMAIL_SUBMISSION_CERTFILE", s.Intake.CertFile, s.Intake.KeyFile)
	if err != nil {
		return err
	}
	if c != nil {
		cfg.TLS = c.Config()
	}
	cfg.Log, cfg.Hooks = i.log, both(counted.Submission(), state.Submission())
	if i.smtp, err = smtpd.Start(i.submitter, cfg); err != nil {
		return listening(settings.SubmissionVariable, err)
	}
	for n, l := range s.Intake.Submission {
		if l.Network == "tcp" {
			l.Address = i.smtp.Addrs()[n].String() // with the port that was free
		}
		i.log.Info().Stringer("addr", l).Msg("takes mail over SMTP")
	}
	return nil
}

func (i *intakes) startAPI(ctx context.Context, s settings.Settings, state *pages.State, counted *metrics.Metrics) error {
	if s.Intake.API == "" {
		return nil
	}
	cfg := intakeconfig.HTTP(s)
	counts, shows := counted.API(), state.API()
	cfg.Log, cfg.Observe = i.log, func(r httpapi.Request) {
		counts(r)
		shows(r)
	}
	c, err := i.cert("EMAIL_API_CERTFILE", s.Intake.APICertFile, s.Intake.APIKeyFile)
	if err != nil {
		return err
	}
	if i.api, err = serveAPI(ctx, s.Intake.API, apiConnections, c, httpapi.New(i.submitter, cfg), i.log); err != nil {
		return listening(settings.APIVariable, err)
	}
	i.log.Info().Str("url", i.api.url).Msg("takes mail over HTTP")
	return nil
}

// both makes one of the hooks of the metrics and of those of the page.
func both(a, b smtpd.Hooks) smtpd.Hooks {
	return smtpd.Hooks{
		Opened: func() {
			a.Opened()
			b.Opened()
		},
		Closed: func() {
			a.Closed()
			b.Closed()
		},
		TurnedAway: a.TurnedAway,
		Login: func(ok bool) {
			a.Login(ok)
			b.Login(ok)
		},
		Message: func(code, bytes int, took time.Duration) {
			a.Message(code, bytes, took)
			b.Message(code, bytes, took)
		},
	}
}

// listening says of a server that could not start which setting to change.
func listening(variable string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Exitf(cli.ExitUnavailable, "%s: %w: another program listens there, perhaps another worker", variable, err)
	}
	return cli.Exitf(cli.ExitUnavailable, "%s: %w", variable, err)
}

// reload reads keys and certificates again. It returns the settings whose files have other keys than before, and a line for each file that
// cannot be used: what was read before is.
func (i *intakes) reload() (changed, wrong []string) {
	if i.submitter == nil {
		return nil, nil
	}
	keep := func(variable string, err error) {
		wrong = append(wrong, fmt.Sprintf("%s: %v. What was read before is kept", variable, err))
	}
	if i.keysFile != "" {
		if keys, err := intake.ReadKeysFile(i.keysFile); err != nil {
			keep(settings.KeysFileVariable, err)
		} else {
			i.submitter.SetKeys(keys)
			if !reflect.DeepEqual(i.keys, keys.All()) {
				changed = append(changed, settings.KeysFileVariable)
			}
			i.keys = keys.All()
		}
	}
	for _, c := range i.certs {
		if err := c.Reload(); err != nil {
			keep(c.variable, err)
		}
		i.warn(c.Certificate)
	}
	return changed, wrong
}

// lastMessages is how long clients have for the messages that they are in the middle of when the process ends.
const lastMessages = 30 * time.Second

// endWith ends them in order when ctx ends, or when wait is called, which waits until they have ended. What Redis has not accepted by
// then its client has not been told to be accepted.
func (i *intakes) endWith(ctx context.Context) (wait func()) {
	if i.client == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var ending sync.WaitGroup
	ending.Go(func() {
		<-ctx.Done()
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastMessages)
		defer stop()
		ending.Go(func() { i.api.end(last) })
		if i.smtp != nil {
			if err := i.smtp.Shutdown(last); err != nil {
				i.log.Warn().Err(err).Msg("connections were cut off in the middle of a message over SMTP; it is not accepted")
			}
		}
	})
	return func() {
		cancel()
		ending.Wait()
		_ = i.client.Close()
	}
}
