package scenario

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func enqueue(size Size, storage harness.Storage) Scenario {
	few, lots := size.of(10_000, 2_000), size.of(40_000, 6_000)
	name, title := stored(enqueueName, "Handing over", storage)
	of := func(n int, fill func(*harness.Bench, *harness.Redis, int)) []Way {
		return as("", handingOver(n, storage, fill))
	}
	return Scenario{
		Name:  name,
		Title: title,
		About: "One process hands mails of 2 kB over to Redis, with Queue.Enqueue from one goroutine and from 32, with Queue.SendMessages " +
			"1,000 at a time, and as the usual handlers' mails are handed over, with asynq's own client. The last three are programs, from their start to their end: " +
			"enqueue bulk reads and checks a file, the one with asynq's client makes its mails itself.",
		Metrics: metrics(rate, producer, server, memory),
		Entries: []Entry{
			{one, "Enqueue, 1 goroutine", true, of(few, func(b *harness.Bench, r *harness.Redis, n int) {
				q := newQueue(r)
				parallel(b, 1, n, func(i int) error { _, err := q.Enqueue(b.Context(), message(i)); return err })
			})},
			{asynqOne, "asynq's client, 1 goroutine", false, of(few, func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueBaseline(b, r, n, 1, baselineMail)
			})},
			{many, "Enqueue, 32 goroutines", true, of(lots, singly)},
			{asynqMany, "asynq's client, 32 goroutines", false, of(lots, baselineTasks)},
			{batches, "SendMessages of 1,000, 1 goroutine", true, of(lots, func(b *harness.Bench, r *harness.Redis, n int) {
				sendInto(b, newQueue(r), n, 1)
			})},
			{manyBatches, "SendMessages of 1,000, 32 goroutines", true, of(2*lots, inBatches)},
			{commandOne, "enqueue bulk, one task a mail", true, as("EMAIL_MASS_SIZE=1", handingOverFile(lots, storage, "EMAIL_MASS_SIZE=1"))},
			{command, "enqueue bulk", true, as("", handingOverFile(3*lots, storage))},
			{asynqProgram, "a program with asynq's client, 32 goroutines", false, as("", handingOverAsynq(lots, storage))},
		},
	}
}

// handingOver measures how long it takes to fill a queue.
func handingOver(n int, storage harness.Storage, fill func(*harness.Bench, *harness.Redis, int)) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		r := harness.StartRedis(b, storage)
		fill(b, r, 100) // connections are open, scripts are loaded
		before, cpu, start := r.Usage(b), harness.OwnCPU(b), time.Now()
		fill(b, r, n)
		took, used := time.Since(start), harness.OwnCPU(b)-cpu
		after := r.Usage(b)
		return report.Sample{
			rate:     float64(n) / took.Seconds(),
			producer: micros(used) / float64(n),
			server:   micros(after.CPU-before.CPU) / float64(n),
			network:  float64(after.Network-before.Network) / float64(n),
		}
	}
}

// handingOverFile measures "enqueue bulk" with a file of mails.
func handingOverFile(n int, storage harness.Storage, settings ...string) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		file := filepath.Join(b.TempDir(), "mails.jsonl")
		writeLines(b, file, n)
		return program(b, storage, n, func(r *harness.Redis) *harness.Process {
			return harness.Start(b, b.Programs.Enqueue, []string{"bulk", file}, append(settings, "REDIS_URL="+r.URL, "EMAIL_HOSTNAME=bench.example")...)
		})
	}
}

func writeLines(b *harness.Bench, path string, n int) {
	f, err := os.Create(path) //nolint:gosec // in a directory of our own
	b.Check(err)
	out := bufio.NewWriter(f)
	for i := range n {
		data, err := message(i).MarshalJSON()
		b.Check(err)
		_, _ = out.Write(append(data, '\n')) // its error comes with Flush
	}
	b.Check(errors.Join(out.Flush(), f.Close()))
}

// handingOverAsynq measures a program that does it with asynq's own client.
func handingOverAsynq(n int, storage harness.Storage) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		return program(b, storage, n, func(r *harness.Redis) *harness.Process {
			return harness.Start(b, b.Programs.Peer, []string{"handover", "-redis", r.URL, "-concurrency", fmt.Sprint(producers), "-mails", fmt.Sprint(n)})
		})
	}
}

// program measures a program that hands over n mails and ends.
func program(b *harness.Bench, storage harness.Storage, n int, run func(*harness.Redis) *harness.Process) report.Sample {
	r := harness.StartRedis(b, storage)
	before, start := r.Usage(b), time.Now()
	p := run(r)
	peak := p.Wait(b)
	took, after := time.Since(start), r.Usage(b)
	return report.Sample{
		rate:     float64(n) / took.Seconds(),
		producer: micros(p.Used()) / float64(n),
		server:   micros(after.CPU-before.CPU) / float64(n),
		memory:   float64(peak) / 1e6,
		network:  float64(after.Network-before.Network) / float64(n),
	}
}
