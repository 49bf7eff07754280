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
	of := func(count int, s stack, urgent urgency) []Way {
		return as("", waits{count: count, lull: 50 * time.Millisecond, pause: 50 * time.Millisecond, stack: s, urgent: urgent}.measure)
	}
	return Scenario{
		Name:  idleName,
		Title: "Latency, nothing else to do",
		About: "From the call of Queue.Enqueue to our own mail server's 250, one mail at a time and at least 50 ms after the one before, the worker having nothing else to do, " +
			"and the commands that Redis gets from a worker while there is no mail at all. An idle asynq looks for work once a second if it is not told otherwise.",
		Metrics: metrics(p50, p99, commands),
		Rounds:  1,
		Entries: []Entry{
			{single4, "worker run, its defaults", true, of(size.of(200, 10), ours(singly), urgentOurs)},
			{netSMTP, "asynq + net/smtp, its defaults", false, of(size.of(15, 4), usual(netSMTP, manyConnections), urgentBaseline)},
			{netSMTP + "-often", "asynq + net/smtp, looking every 10 ms", false, of(size.of(100, 10), usual(netSMTP, manyConnections, "-interval", "10ms"), urgentBaseline)},
		},
	}
}

func saturated(size Size) Scenario {
	n := size.of(25_000, 5_000)
	count := size.of(100, 10)
	of := func(n int, s stack, urgent urgency) func(*harness.Bench) report.Sample {
		return waits{count: count, pause: 20 * time.Millisecond, bulk: n, stack: s, urgent: urgent}.measure
	}
	others := usual(netSMTP, manyConnections)
	others.fill = bulkBaseline
	few := connections(fewConnections)
	return Scenario{
		Name:  saturatedName,
		Title: "Latency under bulk mail",
		About: fmt.Sprintf("From the hand-over of a mail in the queue critical to our own mail server's 250, one at a time, while the worker empties the "+
			"queue bulk of %s mails as fast as it can.", report.Number(float64(n))),
		Metrics: metrics(p50, p99),
		Rounds:  2,
		Entries: []Entry{
			{single4, nameSingle4 + ", bulk one task a mail", true, as("", of(n, ours(bulkSingly, few), urgentOurs))},
			{bulk4, nameSingle4 + ", bulk many mails a task", true, as("", of(2*n, ours(bulkInBatches, few), urgentOurs))},
			{netSMTP, nameNetSMTP, false, as(fmt.Sprint("concurrency ", manyConnections), of(n, others, urgentBaseline))},
		},
	}
}

// urgency returns what hands over one mail that our own mail server knows.
type urgency func(b *harness.Bench, r *harness.Redis) (send func())

// waits measures how long single mails take.
type waits struct {
	stack
	count  int
	lull   time.Duration // at least, between two mails
	pause  time.Duration // at most, beyond that
	bulk   int           // mails in the queue bulk, from the beginning
	urgent urgency
}

func (w waits) measure(b *harness.Bench) report.Sample {
	r, s := harness.StartRedis(b, harness.AppendOnly), harness.StartSink(b, 0)
	if w.bulk > 0 {
		w.fill(b, r, w.bulk)
	}
	w.start(b, r, s).release()
	for w.bulk > 0 && s.Taken() < w.bulk/20 { // bulk mail is flowing
		pause(b, time.Millisecond)
	}
	send := w.urgent(b, r)
	millis := func() float64 { return float64(w.one(b, s, send)) / float64(time.Millisecond) }
	var took []float64
	first := millis() // connections are open
	for len(took) < w.count && (w.bulk == 0 || s.Taken() < w.bulk*9/10) {
		pause(b, w.lull+rand.N(w.pause)) //nolint:gosec // so that hand-overs and looks are not in step
		took = append(took, millis())
	}
	if len(took) == 0 { // the bulk mail was too fast
		took = append(took, first)
	}
	sample := report.Sample{p50: report.Percentile(took, 0.5), p99: report.Percentile(took, 0.99)}
	if w.bulk == 0 {
		sample[commands] = idleCommands(b, r)
	}
	return sample
}

// idleCommands is how many commands a second Redis gets when nothing has happened for a
// while.
func idleCommands(b *harness.Bench, r *harness.Redis) float64 {
	const (
		calm   = time.Second
		window = 3 * time.Second
	)
	pause(b, calm)
	before, start := r.Usage(b), time.Now()
	pause(b, window)
	after := r.Usage(b)
	return max(float64(after.Commands-before.Commands-1), 0) / time.Since(start).Seconds() // one was INFO
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
