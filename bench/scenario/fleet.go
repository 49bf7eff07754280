package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func fleet(size Size) Scenario {
	n := size.of(20_000, 4_000)
	s := Scenario{
		Name:  "fleet",
		Title: "Many workers, one Redis",
		About: fmt.Sprintf("%s mails of 2 kB, and twice as many as bulk mail, in one Redis, emptied by 1, 2 and 4 worker processes. Mail server, Redis and "+
			"workers share this machine's processors: more processes than processors show what more workers cost, not what they bring.",
			report.Number(float64(n))),
		Metrics: metrics(rate, worker, server),
		Rounds:  1,
	}
	of := func(w, n int, fill func(*harness.Bench, *harness.Redis, int)) []Way {
		few := connections(fewConnections)
		return as("", emptying{stack: stack{fill: fill, start: workers(w, few), sends: true}, into: ownSink, span: span{mails: n}}.measure)
	}
	for _, w := range []int{1, 2, 4} {
		s.Entries = append(s.Entries, Entry{fmt.Sprint(w), plural(w, "worker"), true, of(w, n, singly)})
	}
	for _, w := range []int{1, 2, 4} {
		s.Entries = append(s.Entries, Entry{fmt.Sprint(w, "-bulk"), plural(w, "worker") + ", bulk mail", true, of(w, 2*n, inBatches)})
	}
	return s
}

func cluster(size Size) Scenario {
	n := size.of(20_000, 4_000)
	s := Scenario{
		Name:  "cluster",
		Title: "A Redis Cluster",
		About: fmt.Sprintf("%s mails of 2 kB, and twice as many as bulk mail, in a Redis Cluster of three masters, emptied by four worker processes: each queue on "+
			"one master, and in several parts that the masters share (EMAIL_QUEUE_SHARDS). What Redis used is the sum of the masters, and all "+
			"seven processes share this machine's processors.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server),
		Rounds:  1,
	}
	for _, shards := range []int{1, 3} {
		setting := fmt.Sprint("EMAIL_QUEUE_SHARDS=", shards)
		of := func(n int, fill func(*harness.Bench, *harness.Redis, int)) []Way {
			few := connections(fewConnections)
			return as(setting, emptying{stack: stack{fill: fill, start: workers(4, few, setting), sends: true}, masters: masters, into: ownSink, span: span{mails: n}}.measure)
		}
		s.Entries = append(s.Entries,
			Entry{fmt.Sprint(shards), plural(shards, "shard"), true, of(n, func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueInto(b, shardedQueue(r, shards), n)
			})},
			Entry{fmt.Sprint(shards, "-bulk"), plural(shards, "shard") + ", bulk mail", true, of(2*n, func(b *harness.Bench, r *harness.Redis, n int) {
				sendInto(b, shardedQueue(r, shards), n, producers)
			})},
		)
	}
	return s
}

// masters is how many the cluster has.
const masters = 3

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
