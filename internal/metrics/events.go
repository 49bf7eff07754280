package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// eventCollector reads what is known of the events in Redis when it is scraped.
type eventCollector struct {
	client                redis.UniversalClient
	timeout               time.Duration
	unread, bytes, oldest desc
}

var _ prometheus.Collector = (*eventCollector)(nil)

func newEventCollector(b *book, client redis.UniversalClient, timeout time.Duration) *eventCollector {
	return &eventCollector{
		client: client, timeout: timeout,
		unread: b.desc(prometheus.CounterValue, "mailpouch_events_unread_total",
			"Events of a queue that went, for there was no room, before everybody who reads events had read them; all that went if nobody reads any.", "queue"),
		bytes: b.desc(prometheus.GaugeValue, "mailpouch_events_bytes", "About how much memory of Redis the events of a queue take.", "queue"),
		oldest: b.desc(prometheus.GaugeValue, "mailpouch_events_oldest_seconds",
			"How long ago the oldest event happened that a group of readers has not done yet; 0 if there is none. Webhooks are a group for each endpoint.", "group"),
	}
}

// Describe implements prometheus.Collector.
func (c *eventCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []desc{c.unread, c.bytes, c.oldest} {
		ch <- d.Desc
	}
}

// Collect implements prometheus.Collector.
func (c *eventCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	queues, err := c.client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return // the collector of queues says so
	}
	stats, err := events.ReadStats(ctx, c.client, queues)
	if err != nil {
		return
	}
	oldest := map[string]float64{}
	for _, s := range stats[:min(len(stats), maxQueues)] {
		ch <- c.unread.is(float64(s.Unread), s.Queue)
		ch <- c.bytes.is(float64(s.Bytes), s.Queue)
		for group, at := range s.Oldest {
			age := 0.0
			if !at.IsZero() {
				age = max(time.Since(at).Seconds(), 0)
			}
			oldest[group] = max(oldest[group], age)
		}
	}
	for group, age := range oldest {
		ch <- c.oldest.is(age, group)
	}
}
