package tasks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// sink is a backend that renders every message and accepts it.
type sink struct{ accepted *atomic.Int64 }

func (sink) Open(context.Context) (bool, error) { return false, nil }
func (sink) Close() error                       { return nil }

func (s sink) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, s, messages)
}

func (s sink) SendBatch(_ context.Context, b mailer.Batch) {
	group := make([]mailer.Report, 1)
	for i := range b.Messages {
		m, err := b.Begin(i)
		if err == nil {
			err = b.Commit(i)
		}
		if err == nil {
			_, err = m.WriteTo(discard{})
			s.accepted.Add(1)
		}
		group[0] = mailer.Report{Index: i, Result: mailer.Result{Err: err}}
		b.Report(group)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// mails is a batch of mails of 2 kB.
func mails(n int) []*mailer.EmailMessage {
	body := strings.Repeat("A line of text, neither long nor short, as mail has it.\n", 36)
	messages := make([]*mailer.EmailMessage, n)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("u%d@example.com", i))
		messages[i].Body = body
	}
	return messages
}

// BenchmarkQueue hands mails of 2 kB over, from one goroutine and from many.
func BenchmarkQueue(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	q := NewQueue(server.Client(b), QueueConfig{BulkSize: 1, Defaults: mailer.Defaults{Hostname: "app.example.com"}})
	m := mails(1)[0]
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range goroutines {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := q.Enqueue(b.Context(), m); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
		})
	}
}

// BenchmarkQueue_bulk hands mails of 2 kB over in lots of 1,000, from one goroutine and
// from many.
func BenchmarkQueue_bulk(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	q := NewQueue(server.Client(b), QueueConfig{Defaults: mailer.Defaults{Hostname: "app.example.com"}})
	lot := mails(1000)
	for _, goroutines := range []int{1, 32} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			b.ReportAllocs()
			before := ownCPU(b)
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range goroutines {
				wg.Go(func() {
					for n := left.Add(-1000); n > -1000; n = left.Add(-1000) {
						some := lot[:min(1000, 1000+n)]
						if sent, err := q.SendMessages(b.Context(), some); err != nil {
							b.Error(sent, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
			b.ReportMetric(1e6*(ownCPU(b)-before)/float64(b.N), "cpu-us/mail")
		})
	}
}

// BenchmarkDrain empties a queue of 2 kB mails into a backend that takes everything:
// what the queue costs, without a mail server. Beside it is what asynq alone does
// with an empty handler, the ceiling of one asynq server.
func BenchmarkDrain(b *testing.B) {
	run := func(b *testing.B, bulkSize int, drain func(b *testing.B, client redis.UniversalClient, n int)) {
		b.Helper()
		server := redistest.Start(b, redistest.Options{})
		q := NewQueue(server.Client(b), QueueConfig{BulkSize: bulkSize, Defaults: mailer.Defaults{Hostname: "app.example.com"}})
		b.StopTimer()
		if sent, err := q.SendMessages(b.Context(), mails(b.N)); sent != b.N {
			b.Fatal(err)
		}
		client, err := redisconn.ConnectWorker(server.URL())
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		reader := server.Client(b)
		before, redisBefore := ownCPU(b), redisCPU(b, reader)
		b.StartTimer()
		drain(b, client, b.N)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
		b.ReportMetric(1e6*(ownCPU(b)-before)/float64(b.N), "cpu-us/mail")
		b.ReportMetric(1e6*(redisCPU(b, reader)-redisBefore)/float64(b.N), "redis-us/mail")
	}
	b.Run("asynq, empty handler", func(b *testing.B) {
		run(b, 1, func(b *testing.B, client redis.UniversalClient, n int) {
			var handled atomic.Int64
			server := asynq.NewServerFromRedisClient(client, asynq.Config{Concurrency: 50, LogLevel: asynq.FatalLevel})
			handler := asynq.HandlerFunc(func(context.Context, *asynq.Task) error { handled.Add(1); return nil })
			if err := server.Start(handler); err != nil {
				b.Fatal(err)
			}
			await(b, &handled, n)
			b.StopTimer()
			server.Shutdown()
		})
	})
	worker := func(b *testing.B, client redis.UniversalClient, n int) {
		b.Helper()
		drainWorker(b, client, n, func(*Worker) {})
	}
	free := func(b *testing.B, client redis.UniversalClient, n int) {
		b.Helper()
		drainWorker(b, client, n, func(w *Worker) { w.ledger.records = freeRecords{} })
	}
	for name, bulkSize := range map[string]int{"worker": 1, "worker, bulk mail": 100} {
		b.Run(name, func(b *testing.B) { run(b, bulkSize, worker) })
		b.Run(name+", its ledger free of charge", func(b *testing.B) { run(b, bulkSize, free) })
	}
}

// BenchmarkDrainHistory is what records of messages that have ended cost of the rate.
func BenchmarkDrainHistory(b *testing.B) {
	drainWithAndWithout(b, func(cfg *WorkerConfig, on bool) {
		if cfg.History = (History{For: -1}); on {
			cfg.History = History{For: 72 * time.Hour, Size: 1 << 30}
		}
	})
}

// drainWithAndWithout empties queues without something and with it, in turns, for a machine whose speed drifts.
func drainWithAndWithout(b *testing.B, turn func(cfg *WorkerConfig, on bool)) {
	b.Helper()
	const rounds = 7
	for name, bulkSize := range map[string]int{"worker": 1, "worker, bulk mail": 100} {
		b.Run(name, func(b *testing.B) {
			var took, cpu, redisUsed [2][]float64
			for i := range 2 * rounds {
				on := (i + i/2) % 2 // off on, on off, off on, ...
				server := redistest.Start(b, redistest.Options{})
				q := NewQueue(server.Client(b), QueueConfig{BulkSize: bulkSize, Defaults: mailer.Defaults{Hostname: "app.example.com"}})
				if sent, err := q.SendMessages(b.Context(), mails(b.N)); sent != b.N {
					b.Fatal(err)
				}
				client, err := redisconn.ConnectWorker(server.URL())
				if err != nil {
					b.Fatal(err)
				}
				reader := server.Client(b)
				cfg := WorkerConfig{Queues: weights}
				turn(&cfg, on == 1)
				before, redisBefore, start := ownCPU(b), redisCPU(b, reader), time.Now()
				var accepted atomic.Int64
				cfg.Connect = func(string) (mailer.Backend, error) { return sink{&accepted}, nil }
				stop := runWorker(b, client, cfg, func(*Worker) {})
				await(b, &accepted, b.N)
				took[on] = append(took[on], time.Since(start).Seconds())
				stop()
				cpu[on] = append(cpu[on], 1e6*(ownCPU(b)-before)/float64(b.N))
				redisUsed[on] = append(redisUsed[on], 1e6*(redisCPU(b, reader)-redisBefore)/float64(b.N))
				_ = client.Close()
			}
			reportOffOn(b, took, cpu, redisUsed)
		})
	}
}

// drainWorker empties the queue with a worker of the default settings.
func drainWorker(b *testing.B, client redis.UniversalClient, n int, change func(*Worker)) {
	b.Helper()
	var accepted, batches atomic.Int64
	stop := runWorker(b, client, WorkerConfig{
		Queues:    weights,
		Connect:   func(string) (mailer.Backend, error) { return sink{&accepted}, nil },
		Observers: []Observer{{Batch: func(Batch) { batches.Add(1) }}},
	}, change)
	await(b, &accepted, n)
	b.StopTimer()
	stop()
	b.ReportMetric(float64(n)/float64(batches.Load()), "mails/batch")
}

// runWorker runs a worker, changed before that, until stop is called.
func runWorker(b *testing.B, client redis.UniversalClient, cfg WorkerConfig, change func(*Worker)) (stop func()) {
	b.Helper()
	w, err := NewWorker(client, cfg)
	if err != nil {
		b.Fatal(err)
	}
	change(w)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// freeRecords does steps without asking Redis: what a worker would do that keeps no ledger.
type freeRecords struct{}

func (freeRecords) Do(_ context.Context, wanted []asynqbatch.Step) []asynqbatch.Answer {
	return make([]asynqbatch.Answer, len(wanted))
}

func (freeRecords) Sure(string) bool  { return true }
func (freeRecords) Fresh(string) bool { return true }

// ownCPU is the processor time that this process has used, in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(u.Utime) + seconds(u.Stime)
}

// redisCPU is the processor time that Redis has used, in seconds.
func redisCPU(b *testing.B, client *redis.Client) float64 {
	b.Helper()
	return info(b, client, "cpu", "used_cpu_user") + info(b, client, "cpu", "used_cpu_sys")
}

// BenchmarkIdleLatency is the time from the hand-over to the acceptance on a worker
// that has nothing else to do, and what such a worker costs Redis.
func BenchmarkIdleLatency(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	relay := newRelay()
	defer runWorker(b, client, WorkerConfig{Connect: relay.connect, Queues: weights}, func(*Worker) {})()
	q := NewQueue(server.Client(b), QueueConfig{})
	send := func() time.Duration {
		start := time.Now()
		if _, err := q.Enqueue(b.Context(), message("ann@example.com")); err != nil {
			b.Fatal(err)
		}
		<-relay.arrived
		return time.Since(start)
	}
	send()
	reader := server.Client(b)
	before := commands(b, reader)
	time.Sleep(5 * time.Second) // doing nothing is what is measured
	idle := commands(b, reader) - before

	var waits []time.Duration
	b.ResetTimer()
	for range b.N {
		time.Sleep(rand.N(100 * time.Millisecond)) // so that hand-overs and looks are not in step
		waits = append(waits, send())
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(idle/5, "redis-commands/s")
}

// BenchmarkCriticalLatency is the time from the hand-over of a critical mail to its
// acceptance while bulk mail saturates the worker, over a relay that takes a
// millisecond for each mail.
func BenchmarkCriticalLatency(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	relay := newRelay()
	critical := make(chan struct{}, 1)
	relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		time.Sleep(time.Millisecond)
		if m.Subject == "critical" {
			critical <- struct{}{}
		}
		return mailer.Result{}
	}
	q := NewQueue(server.Client(b), QueueConfig{BulkSize: 1, Defaults: mailer.Defaults{Hostname: "app.example.com"}})
	bulk := q.With(Options{Queue: "bulk"})
	if sent, err := bulk.SendMessages(b.Context(), mails(20_000+40*b.N)); err != nil {
		b.Fatal(sent, err)
	}
	defer runWorker(b, client, WorkerConfig{Connect: relay.connect, Queues: weights}, func(*Worker) {})()
	for range 1000 {
		<-relay.arrived // bulk mail is flowing
	}
	urgent := q.With(Options{Queue: "critical"})
	m := message("ann@example.com")
	m.Subject = "critical"
	var waits []time.Duration
	b.ResetTimer()
	for range b.N {
		time.Sleep(rand.N(20 * time.Millisecond))
		start := time.Now()
		if _, err := urgent.Enqueue(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		<-critical
		waits = append(waits, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}

// commands is how many commands clients have sent to Redis; what scripts call is not
// among them.
func commands(b *testing.B, client *redis.Client) float64 {
	b.Helper()
	var sum float64
	for line := range strings.Lines(client.Info(b.Context(), "commandstats").Val()) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		calls, _, _ := strings.Cut(rest, ",")
		var n float64
		if _, err := fmt.Sscan(calls, &n); err == nil && (name == "evalsha" || name == "eval" || !strings.Contains(scriptCommands, name)) {
			sum += n
		}
	}
	return sum
}

// scriptCommands are what asynq's scripts call while there is nothing to do.
const scriptCommands = "rpoplpush exists lrange zrange zrangebyscore zrem get llen zcard hget hset"

// await polls, as the benchmark must not slow down what it measures.
func await(b *testing.B, counter *atomic.Int64, n int) {
	b.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for counter.Load() < int64(n) {
		<-tick.C
	}
}

// BenchmarkDrainRates is what it costs to ask for rates that are never reached.
func BenchmarkDrainRates(b *testing.B) {
	rates := map[string]Rates{"": {
		Messages: RateLimits{{Most: 1_000_000, Per: time.Second, Burst: 1}, {Most: 1_000_000_000, Per: 24 * time.Hour, Burst: 1_000_000}},
	}}
	drainWithAndWithout(b, func(cfg *WorkerConfig, on bool) {
		if on {
			cfg.Rates = rates
		}
	})
}

// BenchmarkDrainEvents is what events of messages that are sent cost of the rate.
func BenchmarkDrainEvents(b *testing.B) {
	drainWithAndWithout(b, func(cfg *WorkerConfig, on bool) { cfg.Events.On = on })
}

// BenchmarkQueueEvents is what it costs to write for each message that it is queued: one by one and many at once.
func BenchmarkQueueEvents(b *testing.B) {
	const rounds = 7
	for name, bulkSize := range map[string]int{"alone": 1, "bulk mail": 100} {
		b.Run(name, func(b *testing.B) {
			lot := mails(1000)
			var took, cpu, redisUsed [2][]float64
			for i := range 2 * rounds {
				on := (i + i/2) % 2
				server := redistest.Start(b, redistest.Options{})
				q := NewQueue(server.Client(b), QueueConfig{
					BulkSize: bulkSize, Defaults: mailer.Defaults{Hostname: "app.example.com"}, Events: EventLog{On: on == 1, Size: 1 << 30},
				})
				reader := server.Client(b)
				before, redisBefore, start := ownCPU(b), redisCPU(b, reader), time.Now()
				var wg sync.WaitGroup
				var left atomic.Int64
				left.Store(int64(b.N))
				for range 8 {
					wg.Go(func() {
						for n := left.Add(-1000); n > -1000; n = left.Add(-1000) {
							if sent, err := q.SendMessages(b.Context(), lot[:min(1000, 1000+n)]); err != nil {
								b.Error(sent, err)
								return
							}
						}
					})
				}
				wg.Wait()
				took[on] = append(took[on], time.Since(start).Seconds())
				cpu[on] = append(cpu[on], 1e6*(ownCPU(b)-before)/float64(b.N))
				redisUsed[on] = append(redisUsed[on], 1e6*(redisCPU(b, reader)-redisBefore)/float64(b.N))
			}
			reportOffOn(b, took, cpu, redisUsed)
		})
	}
}

// reportOffOn reports medians of what was measured without something and with it.
func reportOffOn(b *testing.B, took, cpu, redisUsed [2][]float64) {
	b.Helper()
	median := func(list []float64) float64 { slices.Sort(list); return list[len(list)/2] }
	slower := make([]float64, 0, len(took[0])) // by turns, whose two halves ran one after the other
	for i, off := range took[0] {
		slower = append(slower, 100*(1-off/took[1][i]))
	}
	b.ReportMetric(median(slower), "%-slower")
	for on, unit := range []string{"off", "on"} {
		b.ReportMetric(float64(b.N)/median(took[on]), "mails/s-"+unit)
		b.ReportMetric(median(cpu[on]), "cpu-us/mail-"+unit)
		b.ReportMetric(median(redisUsed[on]), "redis-us/mail-"+unit)
	}
}
