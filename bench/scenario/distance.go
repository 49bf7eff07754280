package scenario

import (
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

const roundTrip = 20 * time.Millisecond

// farSink is our own mail server, a round trip away.
func farSink(b *harness.Bench) harness.MailServer { return harness.StartSink(b, roundTrip) }

// farWay measures a stack over so many connections to a mail server a round trip away. trips is
// how many mails it delivers in a round trip on each, or a few more.
func farWay(s stack, connections int, trips float64, settle, limit time.Duration) func(*harness.Bench) report.Sample {
	mails := min(int(trips*float64(connections)*(limit+settle).Seconds()/roundTrip.Seconds())+10, int((limit+settle).Seconds()*12_000))
	return func(b *harness.Bench) report.Sample {
		sample := emptying{stack: s, into: farSink, span: span{mails: mails, settle: settle, limit: limit}}.measure(b)
		sample[share] = 100 * sample[rate] * roundTrip.Seconds() / float64(connections)
		return sample
	}
}

func distance(size Size) Scenario {
	limit := time.Duration(size.of(2000, 700)) * time.Millisecond
	of := func(s stack, connections int, trips float64) func(*harness.Bench) report.Sample {
		return farWay(s, connections, trips, 0, limit)
	}
	few, lots := connections(fewConnections), connections(manyConnections)
	return Scenario{
		Name:  distanceName,
		Title: "A mail server at 20 ms",
		About: fmt.Sprintf("Each reply of our own mail server is 20 ms late, as that of a server at such a round trip. Mails of 2 kB, for %v, beside one mail a round trip on each "+
			"connection.", limit),
		Metrics: metrics(rate, share, worker),
		Entries: []Entry{
			{single, nameSingle, true, as("", of(ours(singly, lots), manyConnections, 1.5))},
			{bulk, nameBulk, true, as("", of(ours(inBatches, lots), manyConnections, 1.5))},
			{single4, nameSingle4, true, as("", of(ours(singly, few), fewConnections, 1.5))},
			{chunked4, nameSingle4 + ", chunked", true, as(chunking, of(ours(singly, few, chunking), fewConnections, 40))},
			{netSMTP, nameNetSMTP, false, as("concurrency 50", of(usual(netSMTP, 50), manyConnections, 0.5))},
			{bullMQ, nameBullMQ, false, as("concurrency 50", of(nodeStack(50), manyConnections, 0.7))},
		},
	}
}

func growth(size Size) Scenario {
	settle, limit := time.Duration(size.of(20, 2))*time.Second, time.Duration(size.of(3, 1))*time.Second
	return Scenario{
		Name:  growthName,
		Title: "Connections that grow",
		About: fmt.Sprintf("The same mail server at 20 ms, and a worker whose number of connections is not set. It is measured for %v from %v after the first mail on, beside "+
			"one mail a round trip on each of 20 connections.", limit, settle),
		Metrics: metrics(rate, share, worker),
		Rounds:  1,
		Entries: []Entry{
			{growing, "worker run, growing connections", true, as("EMAIL_CONNECTIONS is not set", farWay(ours(singly), manyConnections, 1.2, settle, limit))},
		},
	}
}
