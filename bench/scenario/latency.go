package scenario

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/tasks"
)

func idle(size Size) Scenario {
	return Scenario{
		Name:  "idle",
		Title: "Latency, nothing else to do",
		About: "From the call of Queue.Enqueue to the mail server's 250, one mail at a time and at least 0.1 s after the one before, the worker having nothing else to do. The usual " +
			"handler looks for work once a second, as asynq does if it is not told otherwise.",
		Metrics: metrics("p50_ms", "p99_ms"),
		Rounds:  3,
		Entries: []Entry{
			{nameWorker, true, waits{count: size.of(100, 10), lull: 100 * time.Millisecond, pause: 100 * time.Millisecond, start: workers(1), urgent: urgentOurs}.measure},
			{nameBaseline, false, waits{count: size.of(20, 4), lull: 100 * time.Millisecond, pause: 100 * time.Millisecond, start: peer("netsmtp", peerConnections), urgent: urgentBaseline}.measure},
		},
	}
}

func saturated(size Size) Scenario {
	n := size.of(40_000, 5_000)
	count := size.of(100, 10)
	return Scenario{
		Name:  "saturated",
		Title: "Latency under bulk mail",
		About: fmt.Sprintf("From the hand-over of a mail in the queue critical to the mail server's 250, one at a time, while the worker empties the "+
			"queue bulk of %s mails as fast as it can.", report.Number(float64(n))),
		Metrics: metrics("p50_ms", "p99_ms"),
		Rounds:  3,
		Entries: []Entry{
			{nameUnderBulk, true, waits{count: count, pause: 20 * time.Millisecond, bulk: n, fill: bulkSingly, start: workers(1), urgent: urgentOurs}.measure},
			{"worker run, bulk many mails a task", true, waits{count: count, pause: 20 * time.Millisecond, bulk: 2 * n, fill: bulkInBatches, start: workers(1), urgent: urgentOurs}.measure},
			{nameBaseline, false, waits{count: count, pause: 20 * time.Millisecond, bulk: n, fill: bulkBaseline, start: peer("netsmtp", peerConnections), urgent: urgentBaseline}.measure},
		},
	}
}

// waits measures how long single mails take.
type waits struct {
	count  int
	lull   time.Duration // at least, between two mails
	pause  time.Duration // at most, beyond that
	bulk   int           // mails in the queue bulk, from the beginning
	fill   func(b *harness.Bench, r *harness.Redis, n int)
	start  func(*harness.Bench, *harness.Redis, *harness.Sink) []*harness.Process
	urgent func(b *harness.Bench, r *harness.Redis) (send func())
}

func (w waits) measure(b *harness.Bench) report.Sample {
	r, s := harness.StartRedis(b), harness.StartSink(b, 0)
	release := func() {}
	if w.bulk > 0 {
		w.fill(b, r, w.bulk)
		release = r.Hold(b)
	}
	for _, p := range w.start(b, r, s) {
		r.AwaitWorker(b, p)
	}
	release()
	for w.bulk > 0 && s.Taken() < w.bulk/20 { // bulk mail is flowing
		pause(b, time.Millisecond)
	}
	send := w.urgent(b, r)
	var took []float64
	w.one(b, s, send) // connections are open
	for len(took) < w.count && (w.bulk == 0 || s.Taken() < w.bulk*9/10) {
		pause(b, w.lull+rand.N(w.pause)) //nolint:gosec // so that hand-overs and looks are not in step
		took = append(took, float64(w.one(b, s, send))/float64(time.Millisecond))
	}
	return report.Sample{"p50_ms": report.Percentile(took, 0.5), "p99_ms": report.Percentile(took, 0.99)}
}

// one sends a mail and waits for its arrival.
func (w waits) one(b *harness.Bench, s *harness.Sink, send func()) time.Duration {
	start := time.Now()
	send()
	select {
	case at := <-s.Marked:
		return at.Sub(start)
	case <-time.After(stuck):
		b.Fatalf("a mail has not come after %v", stuck)
	case <-b.Context().Done():
		b.Check(b.Context().Err())
	}
	return 0
}

func pause(b *harness.Bench, d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.Context().Done():
		b.Check(b.Context().Err())
	}
}

// urgentOurs sends a mail that the sink knows.
func urgentOurs(b *harness.Bench, r *harness.Redis) (send func()) {
	q := newQueue(r).With(tasks.Options{Queue: "critical"})
	m := message(0)
	m.To = []string{harness.Mark + "@example.com"}
	return func() {
		_, err := q.Enqueue(b.Context(), m)
		b.Check(err)
	}
}

func urgentBaseline(b *harness.Bench, r *harness.Redis) (send func()) {
	marked := func(i int) baseline.Mail {
		m := baselineMail(i)
		m.To = harness.Mark + "@example.com"
		return m
	}
	return func() { enqueueBaseline(b, r, 1, 1, marked, asynq.Queue("critical")) }
}

func bulkSingly(b *harness.Bench, r *harness.Redis, n int) {
	enqueueInto(b, newQueue(r).With(tasks.Options{Queue: "bulk"}), n)
}

func bulkInBatches(b *harness.Bench, r *harness.Redis, n int) {
	sendInto(b, newQueue(r).With(tasks.Options{Queue: "bulk"}), n, producers)
}

func bulkBaseline(b *harness.Bench, r *harness.Redis, n int) {
	enqueueBaseline(b, r, n, producers, baselineMail, asynq.Queue("bulk"))
}
