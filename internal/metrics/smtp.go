package metrics

import (
	"cmp"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/mailer"
)

// smtpMetrics count what the hooks of smtp backends report.
type smtpMetrics struct {
	known labels

	opened, failed, reused, closed *prometheus.CounterVec
	open                           *prometheus.GaugeVec
	carried                        *prometheus.HistogramVec

	steps, sizes      *prometheus.HistogramVec
	accepted, inDoubt *prometheus.CounterVec

	tokens  *prometheus.CounterVec
	expires *prometheus.GaugeVec
}

func newSMTPMetrics(b *book, known labels) *smtpMetrics {
	return &smtpMetrics{
		known: known,
		opened: b.counter("mailpouch_smtp_connections_opened_total",
			"Connections to a server that were greeted, encrypted and logged in as configured, by version of TLS, `none` in clear text.", "mailer", "tls"),
		failed: b.counter("mailpouch_smtp_connections_failed_total",
			"Attempts to connect that failed, by the step that did and the reply code, `none` without one.", "mailer", "step", "code"),
		reused: b.counter("mailpouch_smtp_connections_reused_total", "Batches that found an open connection which had carried others.", "mailer"),
		closed: b.counter("mailpouch_smtp_connections_closed_total",
			"Connections that have ended, by why: `done` (closed at the worker's end), `full` (carried what the settings allow), `idle`, "+
				"`stale` (ended by the server while idle), `421`, `timeout`, `lost`, `protocol`, `stopped` (the batch's time was up).",
			"mailer", "reason"),
		open: b.gauge("mailpouch_smtp_connections_open", "Connections that are open.", "mailer"),
		carried: b.histogram("mailpouch_smtp_connection_messages", "Messages that a connection has carried when it ends.",
			[]float64{0, 1, 2, 5, 10, 50, 100, 500, 1000, 5000, 10000, 50000}, "mailer"),
		steps: b.histogram("mailpouch_smtp_step_seconds",
			"How long the replies were waited for, for each step of connecting (`connect`, `tls`, `greeting`, `ehlo`, `auth`) and "+
				"of each message (`rset`, `mail`, `rcpt`, `data`, and `end_of_data`, which begins with the body). With pipelining several commands leave at "+
				"once: the first reply has the round trip in it.",
			stepBuckets(), "mailer", "step"),
		sizes: b.histogram("mailpouch_smtp_message_bytes", "Sizes of messages as they were sent, or would have been.",
			[]float64{1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6}, "mailer"),
		accepted: b.counter("mailpouch_smtp_accepted_total", "Messages that a server has accepted for at least one recipient.", "mailer"),
		inDoubt: b.counter("mailpouch_smtp_in_doubt_total",
			"Messages whose connection broke after they were sent whole and before the reply: they may be sent twice.", "mailer"),
		tokens: b.counter("mailpouch_oauth_refreshes_total",
			"Attempts to get an OAuth 2 token for a mailer's login, by result: `ok`, `refused` (the provider says no, until somebody changes something), "+
				"`unavailable` (it did not answer as it should).", "mailer", "result"),
		expires: b.gauge("mailpouch_oauth_token_expiry_timestamp_seconds",
			"When a mailer's OAuth 2 token ends, as Unix time; 0 if there is none, or its end is not known. It is replaced ahead of that when a connection is opened.", "mailer"),
	}
}

// begin makes the series of the mailers.
func (s *smtpMetrics) begin() {
	for _, mailer := range s.known.mailers {
		for _, reason := range []smtp.CloseReason{
			smtp.CloseDone, smtp.CloseFull, smtp.CloseIdle, smtp.CloseStale, smtp.Close421,
			smtp.CloseTimeout, smtp.CloseLost, smtp.CloseProtocol, smtp.CloseStopped,
		} {
			s.closed.WithLabelValues(mailer, string(reason))
		}
		s.open.WithLabelValues(mailer)
		s.reused.WithLabelValues(mailer)
		s.accepted.WithLabelValues(mailer)
		s.inDoubt.WithLabelValues(mailer)
		s.expires.WithLabelValues(mailer)
		for _, result := range []string{"ok", "refused", "unavailable"} {
			s.tokens.WithLabelValues(mailer, result)
		}
	}
}

// Tokens returns the watcher for the OAuth 2 tokens of a mailer, "" being the default one.
func (s *smtpMetrics) Tokens(mailerName string) func(oauth.Event) {
	name := s.known.mailer(mailerName)
	return func(e oauth.Event) {
		result := "ok"
		switch {
		case e.Err != nil && e.Err.Refused:
			result = "refused"
		case e.Err != nil:
			result = "unavailable"
		case e.Expires.IsZero():
			s.expires.WithLabelValues(name).Set(0)
		default:
			s.expires.WithLabelValues(name).Set(float64(e.Expires.Unix()))
		}
		s.tokens.WithLabelValues(name, result).Inc()
	}
}

// Hooks returns the hooks for the smtp backends of a mailer, "" being the default one.
func (s *smtpMetrics) Hooks(mailerName string) *smtp.Hooks {
	name := s.known.mailer(mailerName)
	settled := s.settle(name)
	took := func(step mailer.Step, d time.Duration) {
		if d > 0 {
			s.steps.WithLabelValues(name, stepLabel(step)).Observe(d.Seconds())
		}
	}
	return &smtp.Hooks{
		Connected: func(_ context.Context, c smtp.Connected) {
			took(mailer.StepConnect, c.Dial)
			took(mailer.StepTLS, c.TLS)
			took(mailer.StepGreet, c.Greeting)
			took(mailer.StepHello, c.Hello)
			if c.Conn.Mechanism != "" {
				took(mailer.StepAuth, c.Auth)
			}
			if c.Err != nil {
				s.failed.WithLabelValues(name, step(c.Err), code(c.Err)).Inc()
				return
			}
			s.opened.WithLabelValues(name, cmp.Or(c.Conn.TLS, "none")).Inc()
			s.open.WithLabelValues(name).Inc()
		},
		Reused:  func(context.Context, *smtp.Conn, time.Duration) { s.reused.WithLabelValues(name).Inc() },
		Settled: settled,
		Closed: func(c smtp.Closed) {
			s.open.WithLabelValues(name).Dec()
			s.closed.WithLabelValues(name, string(c.Reason)).Inc()
			s.carried.WithLabelValues(name).Observe(float64(c.Messages))
		},
	}
}

// settle returns a function that counts one message. The series are looked up beforehand,
// because it runs for every message.
func (s *smtpMetrics) settle(name string) func(context.Context, *smtp.Settled) {
	size, accepted, inDoubt := s.sizes.WithLabelValues(name), s.accepted.WithLabelValues(name), s.inDoubt.WithLabelValues(name)
	of := func(step mailer.Step) prometheus.Observer { return s.steps.WithLabelValues(name, stepLabel(step)) }
	reset, mail, rcpt := of(mailer.StepReset), of(mailer.StepMail), of(mailer.StepRcpt)
	data, end := of(mailer.StepData), of(mailer.StepEnd)
	return func(_ context.Context, t *smtp.Settled) {
		size.Observe(float64(t.Octets))
		switch {
		case t.Result.Err == nil:
			accepted.Inc()
		case mailer.ClassOf(t.Result.Err) == mailer.Unknown:
			inDoubt.Inc()
		}
		for _, step := range []struct {
			observer prometheus.Observer
			took     time.Duration
		}{{reset, t.Steps.Reset}, {mail, t.Steps.Mail}, {rcpt, t.Steps.Rcpt}, {data, t.Steps.Data}, {end, t.Steps.End}} {
			if step.took > 0 {
				step.observer.Observe(step.took.Seconds())
			}
		}
	}
}
