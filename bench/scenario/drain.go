package scenario

import (
	"fmt"
	"os/exec"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

func drain(size Size) Scenario {
	n := size.of(30_000, 4_000)
	ours := emptying{mails: n, fill: singly, start: workers(1)}
	empty := emptying{mails: n, fill: singly, start: peer("empty", emptyConcurrency), sinkless: true}
	others := func(kind string, n int) func(*harness.Bench) report.Sample {
		return emptying{mails: n, fill: baselineTasks, start: peer(kind, peerConnections)}.measure
	}
	return Scenario{
		Name:  "drain",
		Title: "One task a mail",
		About: fmt.Sprintf("%s mails of 2 kB wait in Redis, one task each, and one worker process delivers them to a mail server that takes "+
			"everything. The worker has its default settings (%d connections, the ledger on), and beside that the connections of the usual handlers: %d, with as many "+
			"tasks at once, or EMAIL_CHUNKING=auto (chunked). The usual handlers' connections say neither NOOP nor RSET between mails. The empty handler gets the same tasks as the worker "+
			"and sends nothing; a connection for each mail is shown with a third of the mails; the limits at the end have no queue.", report.Number(float64(n)), ownConnections, peerConnections),
		Metrics: metrics(rate, worker, server, memory, waiting, network),
		Entries: []Entry{
			{nameWorker, true, ours.measure},
			{nameMore, true, emptying{mails: n, fill: singly, start: workers(1, manyConnections)}.measure},
			{nameChunked, true, emptying{mails: n, fill: singly, start: workers(1, chunked)}.measure},
			{nameEmpty, false, empty.measure},
			{nameNetSMTP, false, others("netsmtp", n)},
			{nameGoMail, false, others("gomail", n)},
			{nameDial, false, others("dial", n/3)},
			{nameDirect, true, direct(n)},
			{nameSource, false, source(n)},
		},
	}
}

// direct measures our SMTP client alone.
func direct(n int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		s := harness.StartSink(b, 0)
		p := harness.Start(b, b.Programs.Peer, []string{"direct", "-smtp", s.Addr(), "-connections", fmt.Sprint(ownConnections), "-mails", fmt.Sprint(n)})
		return withoutRedis(watch(b, nil, []*harness.Process{p}, n, 0, s.Taken))
	}
}

// source measures Postfix's load generator, which renders nothing.
func source(n int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		path, err := exec.LookPath("smtp-source")
		if err != nil {
			if path, err = exec.LookPath("/usr/sbin/smtp-source"); err != nil {
				b.Skip("smtp-source is not installed (Debian: apt-get install postfix)")
			}
		}
		s := harness.StartSink(b, 0)
		p := harness.Start(b, path, []string{"-d", "-s", fmt.Sprint(ownConnections), "-m", fmt.Sprint(n), "-l", "2048", s.Addr()})
		sample := watch(b, nil, nil, n, 0, s.Taken) // it ends by itself, and its time with it
		p.Wait(b)
		return report.Sample{rate: sample[rate]}
	}
}

func withoutRedis(s report.Sample) report.Sample {
	return report.Sample{rate: s[rate], worker: s[worker], memory: s[memory]}
}

func bulkMail(size Size) Scenario {
	n := size.of(60_000, 8_000)
	return Scenario{
		Name:  "mass",
		Title: "Bulk mail",
		About: fmt.Sprintf("%s mails of 2 kB, handed over with Queue.SendMessages, 1,000 in a call, and delivered by one worker "+
			"process: with its default settings, over 20 connections, and with EMAIL_CHUNKING=auto (chunked); beside it the same mails, handed over one by one.", report.Number(float64(n))),
		Metrics: metrics(rate, worker, server, memory, waiting, network),
		Entries: []Entry{
			{nameBulk, true, emptying{mails: n, fill: inBatches, start: workers(1)}.measure},
			{nameBulkMore, true, emptying{mails: n, fill: inBatches, start: workers(1, manyConnections)}.measure},
			{nameBulkChunked, true, emptying{mails: n, fill: inBatches, start: workers(1, chunked)}.measure},
			{nameWorker, true, emptying{mails: n, fill: singly, start: workers(1)}.measure},
		},
	}
}

const roundTrip = 20 * time.Millisecond

func distance(size Size) Scenario {
	limit := time.Duration(size.of(3000, 700)) * time.Millisecond
	s := Scenario{
		Name:  "distance",
		Title: "A mail server at 20 ms",
		About: fmt.Sprintf("Each reply of the mail server is 20 ms late, as that of a server at such a round trip. Mails of 2 kB, for %v, over 1, 4 and "+
			"20 connections: as the worker does it if it is not told otherwise (pipelined), with EMAIL_CHUNKING=auto (chunked), and with "+
			"asynq and net/smtp over as many connections that stay open.", limit),
		Metrics: metrics(rate, worker),
		Rounds:  3,
	}
	for _, n := range []int{1, 4, 20} {
		connections := "1 connection"
		if n > 1 {
			connections = fmt.Sprintf("%d connections", n)
		}
		ways := []struct {
			name  string
			ours  bool
			trips float64 // mails a round trip and connection, not less than in truth
			fill  func(*harness.Bench, *harness.Redis, int)
			start func(*harness.Bench, *harness.Redis, *harness.Sink) []*harness.Process
		}{
			{"pipelined", true, 1.5, singly, workers(1, fmt.Sprint("EMAIL_CONNECTIONS=", n))},
			{"chunked", true, 40, singly, workers(1, fmt.Sprint("EMAIL_CONNECTIONS=", n), chunked)},
			{"net/smtp", false, 0.5, baselineTasks, peer("netsmtp", n)},
		}
		for _, w := range ways {
			mails := min(int(w.trips*float64(n)*limit.Seconds()/roundTrip.Seconds())+10, int(limit.Seconds()*12_000))
			s.Entries = append(s.Entries, Entry{connections + ", " + w.name, w.ours,
				emptying{mails: mails, limit: limit, distance: roundTrip, fill: w.fill, start: w.start}.measure})
		}
	}
	return s
}

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
