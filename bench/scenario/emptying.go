package scenario

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// emptying measures how fast processes empty a queue into a mail server. The queue is filled
// beforehand, and the processes are up and waiting when the measurement begins.
type emptying struct {
	mails    int
	limit    time.Duration // it is measured for no longer than this, if set
	masters  int           // of a Redis Cluster: one server alone if zero
	distance time.Duration // a round trip to the mail server
	fill     func(b *harness.Bench, r *harness.Redis, n int)
	start    func(b *harness.Bench, r *harness.Redis, s *harness.Sink) []*harness.Process
	sinkless bool // no mail is sent: the queue says how far it is
}

func (e emptying) measure(b *harness.Bench) report.Sample {
	work := e.begin(b)
	done := work.sink.Taken
	if e.sinkless {
		done = func() int {
			left, err := work.redis.Left(b.Context())
			b.Check(err)
			return e.mails - left
		}
	}
	sample := watch(b, work.redis, work.processes, e.mails, e.limit, done)
	sample[waiting] = float64(work.filled) / float64(e.mails)
	sample["redis_mb"] = float64(work.filled) / 1e6
	if got := work.sink.Taken(); got > e.mails {
		b.Errorf("%d mails were handed over and %d came", e.mails, got)
	}
	return sample
}

// work is an emptying that has begun.
type work struct {
	redis     *harness.Redis
	sink      *harness.Sink
	processes []*harness.Process
	filled    int64 // bytes that Redis has taken for the waiting mails
}

// begin fills the queue, starts the processes, and releases them when all are up.
func (e emptying) begin(b *harness.Bench) work {
	r := e.redis(b)
	before := r.Usage(b).Memory
	e.fill(b, r, e.mails)
	w := work{redis: r, sink: harness.StartSink(b, e.distance), filled: r.Usage(b).Memory - before}
	release := r.Hold(b)
	w.processes = e.start(b, r, w.sink)
	for _, p := range w.processes {
		r.AwaitWorker(b, p)
	}
	release()
	return w
}

func (e emptying) redis(b *harness.Bench) *harness.Redis {
	if e.masters > 0 {
		return harness.StartCluster(b, e.masters)
	}
	return harness.StartRedis(b)
}

// stuck is how long nothing may happen.
const stuck = 60 * time.Second

// watch measures from the first finished mail to the last one, or for as long as limit, if
// that is set. The start of the programs does not count.
func watch(b *harness.Bench, r *harness.Redis, processes []*harness.Process, n int, limit time.Duration, done func() int) report.Sample {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	next := func() int {
		select {
		case <-tick.C:
		case <-b.Context().Done():
			b.Check(context.Cause(b.Context()))
		}
		return done()
	}
	count, moved := 0, time.Now()
	for ; count == 0; count = next() {
		stalled(b, processes, moved, 0, n)
	}
	start, first := reading(b, r, processes), count
	moved = start.at
	for count < n && (limit == 0 || time.Since(start.at) < limit) {
		was := count
		if count = next(); count > was {
			moved = time.Now()
		}
		stalled(b, processes, moved, count, n)
	}
	return reading(b, r, processes).since(start, count-first)
}

// stalled ends a measurement in which nothing happens any more.
func stalled(b *harness.Bench, processes []*harness.Process, moved time.Time, count, n int) {
	if time.Since(moved) > stuck || slices.ContainsFunc(processes, (*harness.Process).Ended) {
		b.Fatalf("%d of %d mails have come, and no more since %v", count, n, moved.Format(time.TimeOnly))
	}
}

// instruments are what was used up to a moment.
type instruments struct {
	at    time.Time
	cpu   time.Duration // of the processes
	own   time.Duration // of the mail server, which is in this program, and of the measuring
	all   time.Duration // of the whole machine
	peak  int64         // of the biggest
	redis harness.Usage
}

func reading(b *harness.Bench, r *harness.Redis, processes []*harness.Process) instruments {
	i := instruments{at: time.Now(), own: harness.OwnCPU(b), all: harness.MachineCPU(b)}
	for _, p := range processes {
		i.cpu += p.CPU(b)
		i.peak = max(i.peak, p.PeakMemory(b))
	}
	if r != nil {
		i.redis = r.Usage(b)
	}
	return i
}

func (i instruments) since(start instruments, mails int) report.Sample {
	n := float64(max(mails, 1))
	return report.Sample{
		rate:         n / i.at.Sub(start.at).Seconds(),
		worker:       micros(i.cpu-start.cpu) / n,
		"sink_us":    micros(i.own-start.own) / n,
		"machine_us": micros(i.all-start.all) / n,
		server:       micros(i.redis.CPU-start.redis.CPU) / n,
		network:      float64(i.redis.Network-start.redis.Network) / n,
		memory:       float64(i.peak) / 1e6,
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// workers starts processes of "worker run" with the default settings and those given.
func workers(n int, settings ...string) func(*harness.Bench, *harness.Redis, *harness.Sink) []*harness.Process {
	return func(b *harness.Bench, r *harness.Redis, s *harness.Sink) []*harness.Process {
		all := make([]*harness.Process, 0, n)
		for range n {
			all = append(all, startWorker(b, r, s, nil, settings...))
		}
		return all
	}
}

func startWorker(b *harness.Bench, r *harness.Redis, s *harness.Sink, flags []string, settings ...string) *harness.Process {
	return harness.Start(b, b.Programs.Worker, append([]string{"run"}, flags...), append([]string{
		"REDIS_URL=" + r.URL, "EMAIL_HOST=127.0.0.1", "EMAIL_PORT=" + strconv.Itoa(s.Port()),
		"EMAIL_HOSTNAME=worker.example", "LOG_LEVEL=warn",
	}, settings...)...)
}

// peer starts one of the others, with as many connections as tasks at once.
func peer(kind string, connections int) func(*harness.Bench, *harness.Redis, *harness.Sink) []*harness.Process {
	return func(b *harness.Bench, r *harness.Redis, s *harness.Sink) []*harness.Process {
		return []*harness.Process{harness.Start(b, b.Programs.Peer, []string{
			kind, "-redis", r.URL, "-smtp", s.Addr(), "-connections", fmt.Sprint(connections),
		})}
	}
}
