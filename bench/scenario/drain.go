package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// stored names a scenario after where its Redis keeps the data.
func stored(name, title string, storage harness.Storage) (string, string) {
	if storage == harness.MemoryOnly {
		return name + memoryOnly, title + ", Redis without a file"
	}
	return name, title
}

func drain(size Size, storage harness.Storage) Scenario {
	n := size.of(16_000, 2_000)
	name, title := stored(drainName, "One task a mail", storage)
	of := func(s stack, n int) emptying {
		return emptying{stack: s, into: smtpSink, storage: storage, span: span{mails: n, warm: int(s.warms * float64(n))}}
	}
	s := Scenario{
		Name:  name,
		Title: title,
		About: fmt.Sprintf("%s mails of 2 kB wait in Redis, one task each, and one process delivers them to smtp-sink. BullMQ gets a third of them, and is measured from the middle on, when V8 has compiled what runs often. The empty handler gets the same tasks as the worker; "+
			"the last two have no queue.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, mailServer, memory, waiting, network),
	}
	// tried is one of the others, with the concurrency that suits it best.
	tried := func(key, title string, n int, with func(concurrency int) stack) Entry {
		e := Entry{key, title, false, nil}
		for _, concurrency := range []int{20, 50, 100} {
			e.Ways = append(e.Ways, Way{
				Settings: fmt.Sprint("concurrency ", concurrency), Measure: of(with(concurrency), n).measure, Trial: of(with(concurrency), n/3).measure,
			})
		}
		return e
	}
	s.Entries = []Entry{
		{single, nameSingle, true, as("", of(ours(singly, connections(manyConnections)), n).measure)},
		{single4, nameSingle4, true, as("", of(ours(singly, connections(fewConnections)), n).measure)},
		{empty, nameEmpty, false, as(fmt.Sprint("concurrency ", emptyConcurrency), of(idleAsynq, n).measure)},
		tried(netSMTP, nameNetSMTP, n, func(concurrency int) stack { return usual(netSMTP, concurrency) }),
		tried(goMail, nameGoMail, n, func(concurrency int) stack { return usual(goMail, concurrency) }),
		tried(bullMQ, nameBullMQ, n/3, func(concurrency int) stack { return nodeStack(concurrency) }),
		{client, nameClient, true, as("", direct(n, manyConnections))},
		{source, nameSource, false, as("", sourceAlone(n))},
	}
	return s
}

func bulkMail(size Size, storage harness.Storage) Scenario {
	n := size.of(40_000, 4_000)
	name, title := stored(bulkName, "Bulk mail", storage)
	of := func(connection int) []Way {
		return as("", emptying{stack: ours(inBatches, connections(connection)), into: smtpSink, storage: storage, span: span{mails: n}}.measure)
	}
	return Scenario{
		Name:  name,
		Title: title,
		About: fmt.Sprintf("%s mails of 2 kB, handed over with Queue.SendMessages, 1,000 in a call, and delivered to smtp-sink by one worker process; beside it what "+
			"the worker's SMTP client reaches without a queue.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, mailServer, memory, waiting, network),
		Entries: []Entry{
			{bulk, nameBulk, true, of(manyConnections)},
			{bulk4, nameBulk4, true, of(fewConnections)},
			{client, nameClient, true, as("", direct(n, manyConnections))},
			{client4, nameClient4, true, as("", direct(n, fewConnections))},
		},
	}
}

func chunkingServer(size Size) Scenario {
	n := size.of(20_000, 2_000)
	of := func(s stack, n int) func(*harness.Bench) report.Sample {
		return emptying{stack: s, into: ownSink, span: span{mails: n}}.measure
	}
	return Scenario{
		Name:  chunkingName,
		Title: "A mail server with CHUNKING",
		About: fmt.Sprintf("%s mails of 2 kB and twice as many as bulk mail, delivered to a mail server of our own that needs less time for a mail than smtp-sink and offers "+
			"CHUNKING, which smtp-sink does not.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, mailServer, memory, waiting, network),
		Rounds:  2,
		Entries: []Entry{
			{single, nameSingle, true, as("", of(ours(singly, connections(manyConnections)), n))},
			{single4, nameSingle4, true, as("", of(ours(singly, connections(fewConnections)), n))},
			{chunked4, nameSingle4 + ", chunked", true, as(chunking, of(ours(singly, connections(fewConnections), chunking), n))},
			{bulk4, nameBulk4, true, as("", of(ours(inBatches, connections(fewConnections)), 2*n))},
			{bulkChunked, nameBulk4 + ", chunked", true, as(chunking, of(ours(inBatches, connections(fewConnections), chunking), 2*n))},
			{netSMTP, nameNetSMTP, false, as("concurrency 50", of(usual(netSMTP, 50), n))},
		},
	}
}

// direct measures our SMTP client alone.
func direct(n, connections int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		s := smtpSink(b)
		p := harness.Start(b, b.Programs.Peer, []string{"direct", "-smtp", s.Addr(), "-connections", fmt.Sprint(connections), "-mails", fmt.Sprint(n)})
		sample := watch(b, watched{mailServer: s, processes: []*harness.Process{p}, done: s.Taken}, span{mails: n})
		return report.Sample{rate: sample[rate], worker: sample[worker], mailServer: sample[mailServer], memory: sample[memory]}
	}
}

// sourceAlone measures Postfix's load generator, which renders nothing.
func sourceAlone(n int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		path, s := harness.FindPostfix(b, "smtp-source"), smtpSink(b)
		p := harness.Start(b, path, []string{"-d", "-s", fmt.Sprint(manyConnections), "-m", fmt.Sprint(n), "-l", "2048", s.Addr()})
		sample := watch(b, watched{mailServer: s, done: s.Taken}, span{mails: n}) // it ends by itself
		p.Wait(b)
		return report.Sample{rate: sample[rate], worker: micros(p.Used()) / float64(n), mailServer: sample[mailServer]}
	}
}
