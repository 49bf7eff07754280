package scenario

import (
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func enqueue(size Size) Scenario {
	few, many := size.of(15_000, 2_000), size.of(60_000, 8_000)
	return Scenario{
		Name:  "enqueue",
		Title: "Handing over",
		About: "One process hands mails of 2 kB over to Redis, with Queue.Enqueue from one goroutine and from 32, with Queue.SendMessages " +
			"1,000 at a time, and as the usual handlers' mails are handed over, with asynq's own client.",
		Metrics: metrics(rate, "producer_us", server),
		Entries: []Entry{
			{"Enqueue, 1 goroutine", true, handingOver(few, func(b *harness.Bench, r *harness.Redis, n int) {
				q := newQueue(r)
				parallel(b, 1, n, func(i int) error { _, err := q.Enqueue(b.Context(), message(i)); return err })
			})},
			{"asynq's client, 1 goroutine", false, handingOver(few, func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueBaseline(b, r, n, 1, baselineMail)
			})},
			{"Enqueue, 32 goroutines", true, handingOver(many, singly)},
			{"asynq's client, 32 goroutines", false, handingOver(many, baselineTasks)},
			{"SendMessages of 1,000, 1 goroutine", true, handingOver(many, func(b *harness.Bench, r *harness.Redis, n int) {
				sendInto(b, newQueue(r), n, 1)
			})},
			{"SendMessages of 1,000, 32 goroutines", true, handingOver(2*many, inBatches)},
		},
	}
}

// handingOver measures how long it takes to fill a queue.
func handingOver(n int, fill func(*harness.Bench, *harness.Redis, int)) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		r := harness.StartRedis(b)
		fill(b, r, 100) // connections are open, scripts are loaded
		before, cpu, start := r.Usage(b), harness.OwnCPU(b), time.Now()
		fill(b, r, n)
		took, used := time.Since(start), harness.OwnCPU(b)-cpu
		after := r.Usage(b)
		return report.Sample{
			rate:          float64(n) / took.Seconds(),
			"producer_us": micros(used) / float64(n),
			server:        micros(after.CPU-before.CPU) / float64(n),
			network:       float64(after.Network-before.Network) / float64(n),
		}
	}
}
