package metrics

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
)

// intakeMetrics count what a process takes in from other programs.
type intakeMetrics struct {
	open             *prometheus.GaugeVec
	turnedAway       *prometheus.CounterVec
	logins, messages *prometheus.CounterVec
	sizes, took      *prometheus.HistogramVec

	requests    *prometheus.CounterVec
	requestTook *prometheus.HistogramVec
}

func newIntakeMetrics(b *book) *intakeMetrics {
	return &intakeMetrics{
		open: b.gauge("mailpouch_submission_connections_open", "Connections of SMTP clients that hand mail in, as far as they are open now."),
		turnedAway: b.counter("mailpouch_submission_turned_away_total",
			"SMTP clients whose connection was ended by a limit: `connections` (all that may be open), `address` (those of one address), `commands` (before the login), "+
				"`logins` (that failed), `errors`, `timeout`, `bare_line_end` (a CR or LF alone, as in smuggled messages).", "reason"),
		logins: b.counter("mailpouch_submission_logins_total", "Logins of SMTP clients, by whether the key is one that is known: `ok`, `failed`.", "result"),
		messages: b.counter("mailpouch_submission_messages_total",
			"Whole messages that SMTP clients have handed in, by the reply: 250 is accepted (Redis has it), 451 Redis is away, 452 it is full or too much is being received, "+
				"450 the rate of the key, 550 the key does not allow it or it is no message, 552 too big, 554 a loop, or refused for good.", "code"),
		sizes: b.histogram("mailpouch_submission_message_bytes", "Sizes of the messages that SMTP clients have handed in, accepted or not.",
			[]float64{1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6}),
		took: b.histogram("mailpouch_submission_seconds", "From the end of a message that an SMTP client has handed in until the reply to it: mostly the time of Redis.", stepBuckets()),
		requests: b.counter("mailpouch_api_requests_total",
			"Requests to the JSON API, by what was asked for, `none` for what is not there, and by the status of the answer: 401 and 403 are those without a key that is known, "+
				"429 those beyond the rate of the key, 503 that Redis is away or full.", "route", "code"),
		requestTook: b.histogram("mailpouch_api_seconds", "How long requests to the JSON API took until their answer.", stepBuckets(), "route"),
	}
}

// Submission returns the hooks of a submission server, and makes the expected series at zero.
func (i *intakeMetrics) Submission() smtpd.Hooks {
	open, sizes, took := i.open.WithLabelValues(), i.sizes.WithLabelValues(), i.took.WithLabelValues()
	for _, reason := range smtpd.Reasons() {
		i.turnedAway.WithLabelValues(turnedAway(reason))
	}
	for _, result := range []string{"ok", "failed"} {
		i.logins.WithLabelValues(result)
	}
	for _, code := range []string{"250", "450", "451", "452", "550", "552", "554"} {
		i.messages.WithLabelValues(code)
	}
	return smtpd.Hooks{
		Opened:     open.Inc,
		Closed:     open.Dec,
		TurnedAway: func(reason smtpd.Reason) { i.turnedAway.WithLabelValues(turnedAway(reason)).Inc() },
		Login: func(ok bool) {
			result := "failed"
			if ok {
				result = "ok"
			}
			i.logins.WithLabelValues(result).Inc()
		},
		Message: func(code, bytes int, d time.Duration) {
			i.messages.WithLabelValues(strconv.Itoa(code)).Inc()
			sizes.Observe(float64(bytes))
			took.Observe(d.Seconds())
		},
	}
}

// API returns what counts the requests to the JSON API, and makes the expected series at zero.
func (i *intakeMetrics) API() func(httpapi.Request) {
	for _, route := range []string{"POST /emails", "POST /messages"} {
		for _, code := range []string{"200", "403", "503"} {
			i.requests.WithLabelValues(route, code)
		}
	}
	return func(r httpapi.Request) {
		route := cmp.Or(r.Route, "none")
		i.requests.WithLabelValues(route, strconv.Itoa(r.Status)).Inc()
		i.requestTook.WithLabelValues(route).Observe(r.Took.Seconds())
	}
}

// turnedAway writes a reason as the value of a label.
func turnedAway(r smtpd.Reason) string { return strings.ReplaceAll(string(r), " ", "_") }
