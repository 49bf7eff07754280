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
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
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

	*workerMetrics  // Observer, Signs, Recipients, Reloaded
	*smtpMetrics    // Hooks, Tokens
	*intakeMetrics  // Submission, API
	*webhookMetrics // Webhooks, Posted
}

// New returns metrics that have counted nothing.
func New(cfg Config) *Metrics {
	if len(cfg.Queues) == 0 {
		cfg.Queues = []string{"default"}
	}
	registry := prometheus.NewRegistry()
	b := &book{}
	known := labels{mailers: append(names{defaultMailer}, cfg.Mailers...), queues: slices.Clone(cfg.Queues), tags: slices.Clone(cfg.Tags)}
	m := &Metrics{
		registry: registry, book: b,
		workerMetrics: newWorkerMetrics(b, known), smtpMetrics: newSMTPMetrics(b, known), intakeMetrics: newIntakeMetrics(b), webhookMetrics: newWebhookMetrics(b),
	}
	if !cfg.NoWorker {
		m.workerMetrics.begin()
		m.smtpMetrics.begin()
	}
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

// Definitions are the metrics of this project, by name. Those of Go's runtime (go_...)
// and of the process (process_...) are client_golang's.
func Definitions() []Definition {
	all := New(Config{}).book.definitions
	slices.SortFunc(all, func(a, b Definition) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Markdown is the table of Definitions.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range Definitions() {
		quoted := make([]string, len(d.Labels))
		for i, l := range d.Labels {
			quoted[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, strings.Join(quoted, ", "), d.Help)
	}
	return b.String()
}
