// Package metrics counts what a worker does, for Prometheus.
//
// A [Metrics] has a registry of its own. A worker's [tasks.Observer] and the hooks of its
// smtp backends feed it. What is in the queues it reads from Redis while it is scraped.
// [Markdown] lists all metrics.
//
// Labels have few values: names of mailers and queues that are configured, classes, steps
// and reply codes. No address, no text of a server and nothing of a message is in any.
package metrics

import (
	"cmp"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/tasks"
)

// Config configures Metrics. The zero value is usable.
type Config struct {
	// Redis is where the queues are read. Its commands have to end with their context, as
	// those of redisconn.ConnectStatus do. If nil, there are no metrics of queues.
	Redis redis.UniversalClient

	// Timeout is how long a scrape waits for Redis: 2 s if zero. After that the scrape has
	// all metrics but those that were not read in time.
	Timeout time.Duration

	Mailers []string // names of the mailers beside the default one
	Queues  []string // names of the queues, as producers know them: "default" if empty
	Tags    []string // of messages that are counted apart; others are counted as other, none if empty
	Version string   // of the program

	Events bool // what is known of the events in Redis is read too

	NoWorker bool // the process delivers nothing: nothing of what a worker does is counted from zero
}

// Metrics is what a process has counted. Its methods may be called from several goroutines.
type Metrics struct {
	registry *prometheus.Registry
	book     *book
	mailers  names
	queues   names
	tags     names
	worker   workerMetrics
	smtp     smtpMetrics
	intake   intakeMetrics
	webhook  webhookMetrics
}

// New returns metrics that have counted nothing.
func New(cfg Config) *Metrics {
	if len(cfg.Queues) == 0 {
		cfg.Queues = []string{"default"}
	}
	registry := prometheus.NewRegistry()
	b := &book{}
	m := &Metrics{
		registry: registry, book: b,
		mailers: append(names{defaultMailer}, cfg.Mailers...), queues: slices.Clone(cfg.Queues), tags: slices.Clone(cfg.Tags),
		worker: newWorkerMetrics(b), smtp: newSMTPMetrics(b), intake: newIntakeMetrics(b), webhook: newWebhookMetrics(b),
	}
	if !cfg.NoWorker {
		m.begin()
	}
	for _, result := range []string{"used", "refused"} {
		m.worker.reloads.WithLabelValues(result)
	}
	m.worker.wrongFiles.WithLabelValues()
	info := b.gauge("mailpouch_build_info", "Always 1; the labels say what is running.", "version", "goversion")
	info.WithLabelValues(cmp.Or(cfg.Version, "unknown"), runtime.Version()).Set(1)
	queues := newQueueCollector(b, cfg.Redis, cmp.Or(cfg.Timeout, 2*time.Second))
	events := newEventCollector(b, cfg.Redis, cmp.Or(cfg.Timeout, 2*time.Second))
	if cfg.Redis != nil {
		b.collectors = append(b.collectors, queues)
	}
	if cfg.Redis != nil && cfg.Events {
		b.collectors = append(b.collectors, events)
	}
	registry.MustRegister(b.collectors...)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// maxScrapes is how many scrapes may be under way; more get 503.
const maxScrapes = 4

// Handler serves the metrics in Prometheus' text format. It never fails because of Redis.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	})
}

// begin makes the expected series at zero. A series that began with its first event would
// hide that event from rate() and increase().
func (m *Metrics) begin() {
	for _, mailer := range m.mailers {
		m.worker.signs.WithLabelValues(mailer)
		m.worker.unsigned.WithLabelValues(mailer)
		m.worker.held.WithLabelValues(mailer)
		m.worker.short.WithLabelValues(mailer)
		m.worker.grown.WithLabelValues(mailer)
		m.worker.carries.WithLabelValues(mailer)
		m.worker.rate.WithLabelValues(mailer)
		m.worker.rateLimit.WithLabelValues(mailer)
		m.worker.rateWaited.WithLabelValues(mailer)
		m.worker.leased.WithLabelValues(mailer)
		for _, rule := range []string{"override", "allowed"} {
			m.worker.rules.WithLabelValues(mailer, rule)
		}
		for _, queue := range m.queues {
			for _, action := range actions() {
				m.worker.messages.WithLabelValues(mailer, queue, label(action))
			}
			for _, reason := range reasons() {
				m.worker.back.WithLabelValues(mailer, queue, string(reason))
			}
			for _, why := range []string{"expired", "lost"} {
				m.worker.swept.WithLabelValues(mailer, queue, why)
			}
		}
		if len(m.tags) > 0 {
			for _, tag := range append(slices.Clone(m.tags), other) {
				m.worker.tagged.WithLabelValues(mailer, tag, label(tasks.ActionSent))
				m.worker.tagged.WithLabelValues(mailer, tag, label(tasks.ActionDead))
			}
		}
		m.smtp.begin(mailer)
	}
	for _, why := range []string{"type", "version"} {
		m.worker.foreign.WithLabelValues(why)
	}
}

// defaultMailer is what the mailer without a name is called in labels.
const defaultMailer = "default"

// other is the label of names that are not configured. They come from outside, and there
// may be any number of them.
const other = "other"

// names are the values that a label may have.
type names []string

// known returns the name, or other. fallback is what "" means.
func (n names) known(name, fallback string) string {
	name = cmp.Or(name, fallback)
	if slices.Contains(n, name) {
		return name
	}
	return other
}
