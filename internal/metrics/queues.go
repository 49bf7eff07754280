package metrics

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/pauses"
	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

const (
	// maxQueues bounds how many queues that no worker serves a scrape has: a producer can make a queue of
	// any name. Those that are served are bounded by the workers' settings.
	maxQueues = 200
	// memoryFor is how long the estimate of the queues' memory is used. It takes more of
	// Redis's time than all else.
	memoryFor = time.Minute
)

// queueCollector reads what is in Redis when it is scraped. Names that begin with asynq_
// are those of asynq's own collector, because asynqmon's charts ask a Prometheus server
// for them. They count tasks, and a task of bulk mail carries many messages.
type queueCollector struct {
	client  redis.UniversalClient
	timeout time.Duration

	up, writable, took                   desc
	workers, dead, oldest, served        desc
	pausedNow, pausedFor                 desc
	tasks, size, latency, memory, paused desc
	processed, failed                    desc

	mu      sync.Mutex // guards the following
	sizes   map[string]int64
	sizesAt time.Time
}

var _ prometheus.Collector = (*queueCollector)(nil)

func newQueueCollector(b *book, client redis.UniversalClient, timeout time.Duration) *queueCollector {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return &queueCollector{
		client: client, timeout: timeout,
		up: b.desc(gauge, "mailpouch_redis_up", "1 if Redis has answered this scrape, else 0; then what is read from it is missing."),
		writable: b.desc(gauge, "mailpouch_redis_writable",
			"1 if Redis has taken what this scrape wrote, else 0: it is full, a replica, or has no disk, and takes no mail and gives none out."),
		took:    b.desc(gauge, "mailpouch_redis_scrape_seconds", "How long reading from Redis took for this scrape."),
		workers: b.desc(gauge, "mailpouch_workers", "Worker processes that have told Redis lately that they live."),
		dead: b.desc(gauge, "mailpouch_dead_letters",
			"Messages in a queue that could not be delivered and that nobody has dealt with: the number to alarm on. It is there, and 0, before the first.", "queue"),
		oldest: b.desc(gauge, "mailpouch_queue_oldest_seconds",
			"How long the oldest task that could be taken waits, those that are late because no worker runs included.", "queue"),
		served: b.desc(gauge, "mailpouch_queue_workers",
			"Worker processes that serve a queue. 0 where tasks wait: no worker takes them.", "queue"),
		pausedNow: b.desc(gauge, "mailpouch_pauses",
			"What is paused: a `queue` (of all mailers or of one), a `mailer` or a `mailing`. `enqueue paused` says which, by whom and why.", "kind"),
		pausedFor: b.desc(gauge, "mailpouch_pause_oldest_seconds", "For how long the oldest pause of a kind lasts: 0 if there is none.", "kind"),
		tasks:     b.desc(gauge, "asynq_tasks_enqueued_total", "Tasks in a queue: `active`, `pending`, `scheduled`, `retry`, `archived`, `completed`.", "queue", "state"),
		size:      b.desc(gauge, "asynq_queue_size", "Tasks in a queue, of all states.", "queue"),
		latency:   b.desc(gauge, "asynq_queue_latency_seconds", "How long the oldest pending task waits.", "queue"),
		memory: b.desc(gauge, "asynq_queue_memory_usage_approx_bytes",
			"About how much memory of Redis a queue takes, from a sample of its tasks, at most a minute old.", "queue"),
		paused:    b.desc(gauge, "asynq_queue_paused_total", "1 if a person has paused the queue, else 0.", "queue"),
		processed: b.desc(counter, "asynq_tasks_processed_total", "Tries of tasks that have ended, well or not.", "queue"),
		failed:    b.desc(counter, "asynq_tasks_failed_total", "Tries of tasks that failed.", "queue"),
	}
}

// Describe implements prometheus.Collector.
func (c *queueCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []desc{
		c.up, c.writable, c.took, c.workers, c.dead, c.oldest, c.served, c.pausedNow, c.pausedFor,
		c.tasks, c.size, c.latency, c.memory, c.paused, c.processed, c.failed,
	} {
		ch <- d.Desc
	}
}

// Collect implements prometheus.Collector.
func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	start := time.Now()
	queues, err := queuestats.ReadStats(ctx, c.client)
	workers := 0
	if err == nil {
		workers, err = queuestats.CountWorkers(ctx, c.client)
	}
	var paused []pauses.Pause
	if err == nil {
		paused, err = pauses.List(ctx, c.client)
	}
	if err != nil {
		ch <- c.up.is(0)
		ch <- c.writable.is(0)
		return
	}
	writable := 1.0
	if redisconn.TryWrite(ctx, c.client) != nil {
		writable = 0
	}
	ch <- c.writable.is(writable)
	queues, unused := bound(queues)
	memory := c.memoryOf(ctx, queues)
	ch <- c.up.is(1)
	ch <- c.took.is(time.Since(start).Seconds())
	ch <- c.workers.is(float64(workers))
	c.collectPauses(ch, paused)
	for _, q := range queues {
		c.collect(ch, q)
		if n, ok := memory[q.Name]; ok {
			ch <- c.memory.is(float64(n), q.Name)
		}
	}
	// The rise from 0 to the first dead letter of a queue can be seen only if the 0 was there.
	for _, q := range unused {
		ch <- c.dead.is(0, q.Name)
	}
}

// collectPauses counts by kind alone: a mailing may have any name.
func (c *queueCollector) collectPauses(ch chan<- prometheus.Metric, paused []pauses.Pause) {
	for _, kind := range []string{pauses.KindQueue, pauses.KindMailer, pauses.KindMailing} {
		n, longest := 0, 0.0
		for _, p := range paused {
			if p.Kind() == kind {
				n++
				longest = max(longest, time.Since(p.At).Seconds())
			}
		}
		ch <- c.pausedNow.is(float64(n), kind)
		ch <- c.pausedFor.is(longest, kind)
	}
}

// bound returns the queues that a scrape has: those that have something or had, and those that a worker serves and in
// which nothing ever was.
func bound(queues []queuestats.Stats) (used, unused []queuestats.Stats) {
	unserved := 0
	for _, q := range queues {
		if q.Workers == 0 {
			unserved++
		}
		switch {
		case q.Workers == 0 && unserved > maxQueues:
		case q.Unused:
			unused = append(unused, q)
		default:
			used = append(used, q)
		}
	}
	return used, unused
}

func (c *queueCollector) collect(ch chan<- prometheus.Metric, q queuestats.Stats) {
	states := []struct {
		name  string
		tasks int
	}{
		{"active", q.InFlight}, {"pending", q.Waiting}, {"scheduled", q.Scheduled},
		{"retry", q.Retry}, {"archived", q.Archived}, {"completed", q.Completed},
	}
	size := 0
	for _, s := range states {
		size += s.tasks
		ch <- c.tasks.is(float64(s.tasks), q.Name, s.name)
	}
	now, paused, latency := time.Now(), 0.0, 0.0
	if q.Paused {
		paused = 1
	}
	if !q.Since.IsZero() {
		latency = max(now.Sub(q.Since).Seconds(), 0)
	}
	ch <- c.size.is(float64(size), q.Name)
	ch <- c.latency.is(latency, q.Name)
	ch <- c.paused.is(paused, q.Name)
	ch <- c.processed.is(float64(q.Processed), q.Name)
	ch <- c.failed.is(float64(q.Failed), q.Name)
	ch <- c.dead.is(float64(q.Dead), q.Name)
	ch <- c.served.is(float64(q.Workers), q.Name)
	ch <- c.oldest.is(q.Oldest(now).Seconds(), q.Name)
}

// memoryOf returns the memory that queues take, or nil if Redis cannot be asked.
func (c *queueCollector) memoryOf(ctx context.Context, queues []queuestats.Stats) map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sizesAt.IsZero() && time.Since(c.sizesAt) < memoryFor {
		return maps.Clone(c.sizes)
	}
	list := make([]string, len(queues))
	for i, q := range queues {
		list[i] = q.Name
	}
	memory, err := queuestats.Memory(ctx, c.client, list)
	if err != nil {
		memory = nil
	}
	c.sizes, c.sizesAt = memory, time.Now()
	return maps.Clone(memory)
}
