package tasks

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// BenchmarkIdle is what a worker costs that has nothing to do: its own processor time, and Redis's commands
// (those inside scripts are counted too), connections and processor time.
func BenchmarkIdle(b *testing.B) {
	for _, mailers := range []int{0, 200, 1000} {
		b.Run(fmt.Sprintf("mailers=%d", mailers), func(b *testing.B) { benchmarkIdle(b, mailers) })
	}
}

func benchmarkIdle(b *testing.B, mailers int) {
	server := redistest.Start(b, redistest.Options{})
	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	names := map[string]int{}
	for i := range mailers {
		names[fmt.Sprintf("tenant%d", i)] = 4
	}
	reader := server.Client(b)
	memory := heap()
	defer runWorker(b, client, WorkerConfig{Connect: newRelay().connect, Mailers: names}, func(*Worker) {})()
	time.Sleep(5 * time.Second) // until it has started
	memory = heap() - memory
	commandsBefore, redisBefore, before := allCommands(b.Context(), reader), redisCPU(b, reader), ownCPU(b)
	const seconds = 20
	time.Sleep(seconds * time.Second) // doing nothing is what is measured
	b.ReportMetric((ownCPU(b)-before)/seconds*100, "%-of-a-core")
	b.ReportMetric((redisCPU(b, reader)-redisBefore)/seconds*100, "%-of-redis's-core")
	b.ReportMetric((allCommands(b.Context(), reader)-commandsBefore)/seconds, "redis-commands/s")
	b.ReportMetric(info(b, reader, "clients", "connected_clients")-1, "connections")
	b.ReportMetric(float64(memory)/1e6, "heap-MB")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
}

// allCommands is how many commands Redis has run, those inside scripts too.
func allCommands(ctx context.Context, client *redis.Client) float64 {
	var sum float64
	for _, calls := range regexp.MustCompile(`calls=(\d+)`).FindAllStringSubmatch(client.Info(ctx, "commandstats").Val(), -1) {
		n, _ := strconv.ParseFloat(calls[1], 64)
		sum += n
	}
	return sum
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
