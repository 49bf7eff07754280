package scenario

import (
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

const roundTrip = 20 * time.Millisecond

// growth is how long connections have to grow from the first ones to the most.
const growth = 20 * time.Second

func distance(size Size) Scenario {
	limit := time.Duration(size.of(3000, 700)) * time.Millisecond
	// of measures a stack over so many connections, which delivers so many mails a round trip
	// and connection, or a few less.
	of := func(s stack, connections int, trips float64, settle time.Duration) func(*harness.Bench) report.Sample {
		mails := min(int(trips*float64(connections)*(limit+settle).Seconds()/roundTrip.Seconds())+10, int((limit+settle).Seconds()*12_000))
		return func(b *harness.Bench) report.Sample {
			sample := emptying{stack: s, into: farSink, span: span{mails: mails, settle: settle, limit: limit}}.measure(b)
			sample[share] = 100 * sample[rate] * roundTrip.Seconds() / float64(connections)
			return sample
		}
	}
	settle := time.Duration(size.of(int(growth.Seconds()), 0)) * time.Second
	return Scenario{
		Name:  distanceName,
		Title: "A mail server at 20 ms",
		About: fmt.Sprintf("Each reply of our own mail server is 20 ms late, as that of a server at such a round trip. Mails of 2 kB, for %v, beside one mail a round trip on each "+
			"connection. Where EMAIL_CONNECTIONS is not set, it is measured %v after the first mail.", limit, settle),
		Metrics: metrics(rate, share, worker),
		Rounds:  2,
		Entries: []Entry{
			{single, nameSingle, true, as("", of(ours(singly, connections(manyConnections)), manyConnections, 1.5, 0))},
			{bulk, nameBulk, true, as("", of(ours(inBatches, connections(manyConnections)), manyConnections, 1.5, 0))},
			{growing, "worker run, growing connections", true, as("EMAIL_CONNECTIONS is not set", of(ours(singly), manyConnections, 1.2, settle))},
			{single4, nameSingle4, true, as("", of(ours(singly, connections(fewConnections)), fewConnections, 1.5, 0))},
			{chunked4, nameSingle4 + ", chunked", true, as(chunking, of(ours(singly, connections(fewConnections), chunking), fewConnections, 40, 0))},
			{netSMTP, nameNetSMTP, false, as("concurrency 50", of(usual(netSMTP, manyConnections, 50), manyConnections, 0.5, 0))},
			{bullMQ, nameBullMQ, false, as("concurrency 50", of(nodeStack(manyConnections, 50), manyConnections, 0.7, 0))},
		},
	}
}
