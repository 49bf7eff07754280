package scenario

import (
	"context"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// emptying measures how fast processes empty a queue into a mail server. The queue is filled
// beforehand, and the processes are up and waiting when the measurement begins.
type emptying struct {
	stack
	into    func(*harness.Bench) harness.MailServer
	storage harness.Storage
	masters int // of a Redis Cluster: one server alone if zero
	span        // that is measured
}

func (e emptying) measure(b *harness.Bench) report.Sample {
	work := e.begin(b)
	work.done = work.mailServer.Taken
	if !e.sends {
		work.done = func() int {
			left, err := work.redis.Left(b.Context())
			b.Check(err)
			return e.mails - left
		}
	}
	sample := watch(b, work.watched, e.span)
	sample[waiting] = float64(work.filled) / float64(e.mails)
	sample[filled] = float64(work.filled) / 1e6
	if !e.sends {
		delete(sample, mailServer)
	}
	if got := work.mailServer.Taken(); got > e.mails {
		b.Errorf("%d mails were handed over and %d came", e.mails, got)
	}
	return sample
}

// work is an emptying that has begun.
type work struct {
	watched
	filled int64 // bytes that Redis has taken for the waiting mails
}

// begin fills the queue, starts the processes, and releases them when all are up.
func (e emptying) begin(b *harness.Bench) work {
	r := e.redis(b)
	before := r.Usage(b).Memory
	e.fill(b, r, e.mails)
	w := work{watched: watched{redis: r, mailServer: e.into(b)}, filled: r.Usage(b).Memory - before}
	crew := e.start(b, r, w.mailServer)
	w.processes = crew.processes
	w.before = w.reading(b)
	crew.release()
	return w
}

func (e emptying) redis(b *harness.Bench) *harness.Redis {
	if e.masters > 0 {
		return harness.StartCluster(b, e.masters)
	}
	return harness.StartRedis(b, e.storage)
}

// stuck is how long nothing may happen.
const stuck = 60 * time.Second

// watched is what is looked at while mails are delivered.
type watched struct {
	redis      *harness.Redis // nil where there is no queue
	mailServer harness.MailServer
	processes  []*harness.Process
	done       func() int  // mails so far
	before     instruments // as it begins: when watch is called if that is zero
}

// span is which part of the work is measured: from the first mail to the last one if no
// more is said.
type span struct {
	mails  int           // there are
	warm   int           // come before it is measured
	settle time.Duration // passes from the first one until it is measured
	limit  time.Duration // it is measured for no longer, if set
}

// watch measures a span. The start of the programs is not in it.
func watch(b *harness.Bench, w watched, s span) report.Sample {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	next := func() int {
		select {
		case <-tick.C:
		case <-b.Context().Done():
			b.Check(context.Cause(b.Context()))
		}
		return w.done()
	}
	if w.before.at.IsZero() {
		w.before = w.reading(b)
	}
	count, moved := 0, time.Now()
	until := func(reached func() bool) {
		for !reached() {
			was := count
			if count = next(); count > was {
				moved = time.Now()
			}
			stalled(b, w.processes, moved, count, s.mails)
		}
	}
	until(func() bool { return count > 0 })
	begun := time.Now()
	until(func() bool { return count >= s.mails || count > s.warm && time.Since(begun) >= s.settle })
	start, first := w.reading(b), count
	if s.warm == 0 && s.settle == 0 && count > s.mails/2 { // at the first look: too little is left
		start, first = w.before, 0
	}
	until(func() bool { return count >= s.mails || s.limit > 0 && time.Since(start.at) >= s.limit })
	if count == first {
		b.Fatalf("all %d mails had come before it was measured", s.mails)
	}
	return w.reading(b).since(start, count-first)
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
	sink  time.Duration // of the mail server
	all   time.Duration // of the whole machine
	peak  int64         // of the biggest process
	redis harness.Usage
}

func (w watched) reading(b *harness.Bench) instruments {
	i := instruments{at: time.Now(), sink: w.mailServer.CPU(b), all: harness.MachineCPU(b)}
	for _, p := range w.processes {
		i.cpu += p.CPU(b)
		i.peak = max(i.peak, p.PeakMemory(b))
	}
	if w.redis != nil {
		i.redis = w.redis.Usage(b)
	}
	return i
}

func (i instruments) since(start instruments, mails int) report.Sample {
	n := float64(max(mails, 1))
	return report.Sample{
		rate:         n / i.at.Sub(start.at).Seconds(),
		worker:       micros(i.cpu-start.cpu) / n,
		mailServer:   micros(i.sink-start.sink) / n,
		"machine_us": micros(i.all-start.all) / n,
		server:       micros(i.redis.CPU-start.redis.CPU) / n,
		network:      float64(i.redis.Network-start.redis.Network) / n,
		memory:       float64(i.peak) / 1e6,
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
