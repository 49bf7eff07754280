package tasks

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// lineCounter counts what is logged.
type lineCounter struct {
	mu    sync.Mutex
	lines []string
}

func (c *lineCounter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, string(bytes.TrimSpace(p)))
	return len(p), nil
}

func (c *lineCounter) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

func (c *lineCounter) logger() *zerolog.Logger { return new(zerolog.New(c).Level(zerolog.WarnLevel)) }

// countingClient is ConnectWorker's client, with its dials counted.
func countingClient(t *testing.T, url string, dials *atomic.Int64) redis.UniversalClient {
	t.Helper()
	client, err := redisconn.ConnectWorker(url)
	if err != nil {
		t.Fatal(err)
	}
	client.AddHook(dialCounter{dials})
	return client
}

type dialCounter struct{ dials *atomic.Int64 }

func (c dialCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.dials.Add(1)
		return next(ctx, network, addr)
	}
}

func (dialCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (dialCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// seldom lets some time pass, and checks that no more than most of what count counts happens in a second. A stalled machine makes
// it longer.
func seldom(t *testing.T, what string, most float64, d time.Duration, count func() int64) {
	t.Helper()
	begin, before := time.Now(), count()
	over := time.NewTimer(d)
	defer over.Stop()
	<-over.C
	n := count() - before
	if took := time.Since(begin); float64(n) > most*took.Seconds() {
		t.Errorf("%d %s in %v, want %.0f a second at most", n, what, took.Round(time.Millisecond), most)
	}
}

// While Redis is away for ten seconds the worker neither spins nor floods the log, and
// it goes on by itself when Redis is back. Nothing is lost and nothing sent twice.
func TestWorker_redisAway(t *testing.T) {
	t.Parallel()
	const n = 2000
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	h.send(n, nil)
	var dials atomic.Int64
	log := &lineCounter{}
	cfg := h.config()
	cfg.Concurrency, cfg.Logger = 200, log.logger()
	stop := h.startOn(countingClient(t, h.URL(), &dials), cfg)
	h.wait(300)
	h.Stop()
	seldom(t, "connections tried", 200, 10*time.Second, dials.Load)
	h.Restart()
	h.eventually("nothing waits", func() bool { info := h.info(); return info.Queue != "" && info.Pending+info.Retry == 0 })
	giveBackOrphans(t, h.Client(t)) // Redis may have given one out as it ended
	h.wait(n - 300)
	h.empty()
	stop()
	h.once(n)
	if lines := log.all(); len(lines) > 40 {
		t.Errorf("%d lines logged:\n%s", len(lines), strings.Join(lines[:40], "\n"))
	}
}

// A Redis that answers but takes no commands is not asked without end either.
func TestWorker_redisRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(100, nil)
	admin := h.Client(t)
	set := func(limit string) {
		t.Helper()
		if err := admin.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1") // full: asynq may not take a task, because that writes
	log := &lineCounter{}
	cfg := h.config()
	cfg.Logger = log.logger()
	stop := h.start(cfg)
	refused := func() int64 { return commandCalls(t, admin, "rejected_calls") + commandCalls(t, admin, "failed_calls") }
	h.eventually("Redis refuses", func() bool { return refused() > 0 })
	seldom(t, "commands refused", 50, 3*time.Second, refused)
	set("0")
	h.wait(100)
	h.empty()
	stop()
	h.once(100)
	if lines := log.all(); len(lines) > 20 {
		t.Errorf("%d lines logged:\n%s", len(lines), strings.Join(lines[:20], "\n"))
	}
}

// commandCalls adds a figure of INFO commandstats up over all commands.
func commandCalls(t *testing.T, c *redis.Client, figure string) (sum int64) {
	t.Helper()
	stats, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(stats, "\r\n") {
		if _, after, ok := strings.Cut(line, figure+"="); ok {
			var n int64
			if _, err := fmt.Sscan(strings.SplitN(after, ",", 2)[0], &n); err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// The same with sentinels and with a cluster, where the client itself looks for the servers.
func TestWorker_serversAway(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		start func(*testing.T) (url string, all, end []*redistest.Server, ready func())
	}{
		{"sentinels and servers", func(t *testing.T) (string, []*redistest.Server, []*redistest.Server, func()) {
			s := redistest.StartSentinel(t, redistest.Options{AppendOnly: redistest.Always})
			return s.URL(), s.Servers, slices.Concat(s.Servers, s.Sentinels), func() {}
		}},
		{"one master of a cluster", func(t *testing.T) (string, []*redistest.Server, []*redistest.Server, func()) {
			c := redistest.StartCluster(t, 3, redistest.Options{AppendOnly: redistest.Always})
			return c.URL(), c.Masters, c.Masters[:1], c.WaitReady
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, all, end, ready := tt.start(t)
			h := newRealHouse(t, url, nil)
			names := slices.Sorted(maps.Keys(pathQueues))
			var dials atomic.Int64
			log := &lineCounter{}
			cfg := h.config()
			cfg.Queues, cfg.Logger = pathQueues, log.logger()
			stop := h.startOn(countingClient(t, url, &dials), cfg)
			for i := range 20 {
				h.enqueue(Options{Queue: names[i%len(names)]}, mail(fmt.Sprint(i)))
			}
			h.wait(20)
			for _, s := range end {
				s.Kill()
			}
			calls := func() (sum int64) {
				for _, s := range all {
					if s.Running() {
						sum += commandCalls(t, s.Client(t), "calls")
					}
				}
				return sum + dials.Load()
			}
			seldom(t, "connections and commands tried", 250, 4*time.Second, calls)
			for _, s := range end {
				s.Restart()
			}
			ready()
			for i := range 20 {
				h.enqueue(Options{Queue: names[i%len(names)]}, mail(fmt.Sprint(20+i)))
			}
			h.wait(20)
			stop()
			h.once(40)
			if lines := log.all(); len(lines) > 20 {
				t.Errorf("%d lines logged:\n%s", len(lines), strings.Join(lines[:20], "\n"))
			}
		})
	}
}
