package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func fleet(size Size) Scenario {
	n := size.of(40_000, 5_000)
	s := Scenario{
		Name:  "fleet",
		Title: "Many workers, one Redis",
		About: fmt.Sprintf("%s mails of 2 kB in one Redis, one task each and as bulk mail, emptied by 1, 2 and 4 worker processes. Mail server, Redis and "+
			"workers share this machine's processors: more processes than processors show what more workers cost, not what they bring.",
			report.Number(float64(n))),
		Metrics: metrics(rate, worker, server),
		Rounds:  2,
	}
	for _, w := range []int{1, 2, 4} {
		s.Entries = append(s.Entries, Entry{plural(w, "worker"), true, emptying{mails: n, fill: singly, start: workers(w)}.measure})
	}
	for _, w := range []int{1, 2, 4} {
		s.Entries = append(s.Entries, Entry{plural(w, "worker") + ", bulk mail", true, emptying{mails: 2 * n, fill: inBatches, start: workers(w)}.measure})
	}
	return s
}

func cluster(size Size) Scenario {
	n := size.of(40_000, 4_000)
	s := Scenario{
		Name:  "cluster",
		Title: "A Redis Cluster",
		About: fmt.Sprintf("%s mails of 2 kB, and twice as many as bulk mail, in a Redis Cluster of three masters, emptied by four worker processes: each queue on "+
			"one master, and in several parts that the masters share (EMAIL_QUEUE_SHARDS). What Redis used is the sum of the masters, and all "+
			"seven processes share this machine's processors.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server),
		Rounds:  2,
	}
	for _, shards := range []int{1, 3, 6} {
		setting := fmt.Sprint("EMAIL_QUEUE_SHARDS=", shards)
		s.Entries = append(s.Entries,
			Entry{plural(shards, "shard"), true, emptying{mails: n, masters: masters, start: workers(4, setting), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				enqueueInto(b, shardedQueue(r, shards), n)
			}}.measure},
			Entry{plural(shards, "shard") + ", bulk mail", true, emptying{mails: 2 * n, masters: masters, start: workers(4, setting), fill: func(b *harness.Bench, r *harness.Redis, n int) {
				sendInto(b, shardedQueue(r, shards), n, producers)
			}}.measure},
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
