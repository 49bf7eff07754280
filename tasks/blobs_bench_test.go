package tasks

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// BenchmarkAttachments measures what mails with the same attachment of 1 MB cost Redis,
// in the payload and beside it: memory when all are handed over, octets sent to
// it for the hand-over and for each heartbeat of asynq's while a worker holds 400 of them,
// and octets that the worker gets from it in all. A run that says something has a thousand mails:
//
//	go test ./tasks -run '^$' -bench Attachments -benchtime 1000x
func BenchmarkAttachments(b *testing.B) {
	for _, mode := range []struct {
		name      string
		threshold int
	}{{"in the payload", -1}, {"stored once", 0}} {
		b.Run(mode.name, func(b *testing.B) { benchmarkAttachments(b, mode.threshold) })
	}
}

func benchmarkAttachments(b *testing.B, threshold int) {
	server := redistest.Start(b, redistest.Options{})
	client := server.Client(b)
	received := func() float64 { return info(b, client, "stats", "total_net_input_bytes") }
	sent := func() float64 { return info(b, client, "stats", "total_net_output_bytes") }
	q := NewQueue(client, QueueConfig{BulkSize: 1, AttachmentThreshold: threshold, Defaults: mailer.Defaults{Hostname: "app.example.com"}})
	m := mails(1)[0]
	m.Attach("brochure.pdf", brochure(1, 1<<20), "application/pdf")

	b.ResetTimer()
	before := received()
	for range b.N {
		if _, err := q.Enqueue(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	handOver := received() - before
	memory := info(b, client, "memory", "used_memory")

	held := &holdingSink{release: make(chan struct{})}
	beats := &heartbeats{done: make(chan struct{}, 1)}
	delivery := sent()
	stop := beats.work(b, server.URL(), held)
	beats.await(b) // the first ones may see a worker that has not filled up
	beats.await(b)
	before = received()
	beats.await(b)
	heartbeat := received() - before
	close(held.release)
	await(b, &held.accepted, b.N)
	delivery = sent() - delivery
	b.StopTimer()
	stop()

	const mb = 1e6
	b.ReportMetric(memory/mb, "MB-memory")
	b.ReportMetric(handOver/mb, "MB-handover")
	b.ReportMetric(heartbeat/mb, "MB-heartbeat")
	b.ReportMetric(delivery/mb, "MB-delivery")
}

// info reads a number from Redis's INFO.
func info(b *testing.B, client *redis.Client, section, name string) float64 {
	b.Helper()
	text, err := client.Info(b.Context(), section).Result()
	if err != nil {
		b.Fatal(err)
	}
	_, value, _ := strings.Cut(text, "\n"+name+":")
	value, _, _ = strings.Cut(value, "\r")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		b.Fatalf("INFO %s: %s: %v", section, name, err)
	}
	return n
}

// holdingSink accepts nothing until it is released, and then everything.
type holdingSink struct {
	release  chan struct{}
	accepted atomic.Int64
}

func (*holdingSink) Open(context.Context) (bool, error) { return false, nil }
func (*holdingSink) Close() error                       { return nil }

func (s *holdingSink) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	<-s.release
	return sink{&s.accepted}.SendMessages(ctx, messages)
}

func (s *holdingSink) SendBatch(ctx context.Context, b mailer.Batch) {
	<-s.release
	sink{&s.accepted}.SendBatch(ctx, b)
}

// heartbeats is a hook that tells when asynq has written the state of its server.
type heartbeats struct{ done chan struct{} }

// work runs a worker until stop is called.
func (h *heartbeats) work(b *testing.B, url string, backend mailer.Backend) (stop func()) {
	b.Helper()
	client, err := redisconn.ConnectWorker(url)
	if err != nil {
		b.Fatal(err)
	}
	client.AddHook(h)
	w, err := NewWorker(client, WorkerConfig{Connect: func(string) (mailer.Backend, error) { return backend, nil }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		_ = client.Close()
	}
}

func (h *heartbeats) await(b *testing.B) {
	b.Helper()
	select {
	case <-h.done:
	case <-b.Context().Done():
		b.Fatal("no heartbeat")
	}
}

func (h *heartbeats) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *heartbeats) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *heartbeats) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if args := cmd.Args(); len(args) > 4 && strings.HasPrefix(fmt.Sprint(args[4]), "asynq:workers:") {
			select {
			case h.done <- struct{}{}:
			default:
			}
		}
		return err
	}
}
