package metrics

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// BenchmarkScrape is what one scrape costs, beside what asynq's own collector does for the
// same. redis-us is the processor time that Redis takes for it.
func BenchmarkScrape(b *testing.B) {
	const queues, size = 6, 5000
	server := redistest.Start(b, redistest.Options{})
	client, err := redisconn.ConnectStatus(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	for q := range queues {
		fill(b, client, fmt.Sprint("queue", q), size)
	}
	run := func(name string, scrape func()) {
		b.Run(name, func(b *testing.B) {
			scrape()
			before := redisTime(b, client)
			for b.Loop() {
				scrape()
			}
			b.ReportMetric(float64((redisTime(b, client)-before).Microseconds())/float64(b.N), "redis-us")
		})
	}
	collector := newQueueCollector(&book{}, client, time.Minute)
	collect := func() {
		ch := make(chan prometheus.Metric, 1000)
		collector.Collect(ch)
	}
	run("usual", collect)
	run("with-memory", func() {
		collector.sizesAt = time.Time{}
		collect()
	})
	inspector := asynq.NewInspectorFromRedisClient(client)
	run("asynq", func() {
		for q := range queues {
			if _, err := inspector.GetQueueInfo(fmt.Sprint("queue", q)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fill makes a queue of asynq's with so many pending tasks of 2 kB.
func fill(b *testing.B, client redis.UniversalClient, queue string, size int) {
	b.Helper()
	ctx, prefix, payload := b.Context(), "asynq:{"+queue+"}:", strings.Repeat("x", 2000)
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.SAdd(ctx, "asynq:queues", queue)
		for i := range size {
			id := strconv.Itoa(i)
			p.LPush(ctx, prefix+"pending", id)
			p.HSet(ctx, prefix+"t:"+id, "msg", payload, "state", "pending", "pending_since", time.Now().UnixNano())
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// redisTime is the processor time that Redis has used.
func redisTime(b *testing.B, client redis.UniversalClient) time.Duration {
	b.Helper()
	info, err := client.Info(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += seconds
		}
	}
	return time.Duration(sum * float64(time.Second))
}

// BenchmarkMessage is what it costs to count one message.
func BenchmarkMessage(b *testing.B) {
	m := New(Config{})
	observer, hooks := m.Observer(), m.Hooks("")
	ctx := b.Context()
	settled := &smtp.Settled{Octets: 2000, Steps: smtp.Steps{Mail: 1, Rcpt: 1, Data: 1, End: 1}, Result: mailer.Result{Reply: "250 Ok"}}
	outcome := tasks.Outcome{Action: tasks.ActionSent, Queue: "default", Try: 1, Waited: time.Second, Took: time.Second}
	b.ReportAllocs()
	for b.Loop() {
		hooks.Settled(ctx, settled)
		observer.Outcome(outcome)
	}
}
