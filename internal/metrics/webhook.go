package metrics

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailpouch/mailpouch/internal/webhook"
)

// webhookMetrics count what is posted to endpoints of webhooks. Their names are those of hosts in the settings.
type webhookMetrics struct {
	posts *prometheus.CounterVec
	took  *prometheus.HistogramVec
	state *webhookCollector
}

func newWebhookMetrics(b *book) *webhookMetrics {
	w := &webhookMetrics{
		posts: b.counter("mailpouch_webhook_posts_total",
			"Posts of events to an endpoint, by what came of them: `delivered` (2xx), `failed` (tried again), `given_up` (the event is too old to be tried again: it is lost for this endpoint), "+
				"`gone` (410: the endpoint wants no more).", "endpoint", "result"),
		took: b.histogram("mailpouch_webhook_seconds", "How long a post to an endpoint took until its answer.", stepBuckets(), "endpoint"),
		state: &webhookCollector{
			down: b.desc(prometheus.GaugeValue, "mailpouch_webhook_down",
				"1 while an endpoint takes no events, or has said that it wants none any more (410), as this worker sees it, else 0.", "endpoint"),
			oldest: b.desc(prometheus.GaugeValue, "mailpouch_webhook_oldest_seconds",
				"How long ago the oldest event happened that this worker has in hand for an endpoint; 0 if there is none.", "endpoint"),
		},
	}
	b.collectors = append(b.collectors, w.state)
	return w
}

// results are all that may come of a post.
func results() []webhook.Result {
	return []webhook.Result{webhook.Delivered, webhook.Failed, webhook.GivenUp, webhook.Refused}
}

// Webhooks counts what a dispatcher with these endpoints posts, from zero.
func (w *webhookMetrics) Webhooks(endpoints func() []webhook.EndpointState) {
	w.state.endpoints.Store(&endpoints)
	for _, e := range endpoints() {
		for _, result := range results() {
			w.posts.WithLabelValues(e.Name, resultLabel(result))
		}
	}
}

// Posted returns the observer of a dispatcher.
func (w *webhookMetrics) Posted() webhook.Observer {
	return webhook.Observer{Tried: func(t webhook.Try) {
		w.posts.WithLabelValues(t.Endpoint, resultLabel(t.Result)).Inc()
		w.took.WithLabelValues(t.Endpoint).Observe(t.Took.Seconds())
	}}
}

// resultLabel writes a result as the value of a label.
func resultLabel(r webhook.Result) string { return strings.ReplaceAll(string(r), " ", "_") }

// webhookCollector asks the dispatcher when it is scraped.
type webhookCollector struct {
	endpoints    atomic.Pointer[func() []webhook.EndpointState]
	down, oldest desc
}

var _ prometheus.Collector = (*webhookCollector)(nil)

// Describe implements prometheus.Collector.
func (c *webhookCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.down.Desc
	ch <- c.oldest.Desc
}

// Collect implements prometheus.Collector.
func (c *webhookCollector) Collect(ch chan<- prometheus.Metric) {
	endpoints := c.endpoints.Load()
	if endpoints == nil {
		return
	}
	for _, e := range (*endpoints)() {
		down, oldest := 0.0, 0.0
		if !e.FailingSince.IsZero() || !e.EndedAt.IsZero() {
			down = 1
		}
		if !e.Oldest.IsZero() {
			oldest = max(time.Since(e.Oldest).Seconds(), 0)
		}
		ch <- c.down.is(down, e.Name)
		ch <- c.oldest.is(oldest, e.Name)
	}
}
