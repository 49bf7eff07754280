package scenario

import (
	"fmt"
	"os/exec"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
)

// The contenders that the bars name.
const (
	nameWorker  = "worker run"
	nameMore    = "worker run, 20 connections"
	nameChunked = "worker run, chunked"
	nameEmpty   = "asynq, empty handler (limit)"
	nameNetSMTP = "asynq + net/smtp, kept open"
	nameGoMail  = "asynq + go-mail, kept open"
	nameDial    = "asynq + net/smtp, a connection a mail"
	nameDirect  = "our SMTP client, no queue (limit)"
	nameSource  = "smtp-source, no queue (limit)"
)

const (
	peerConnections  = 20 // of the usual handlers
	emptyConcurrency = 50 // of the empty one: where it is fastest
	ownConnections   = 4  // the default of EMAIL_CONNECTIONS

	manyConnections = "EMAIL_CONNECTIONS=20" // as many as the usual handlers have
	chunked         = "EMAIL_CHUNKING=auto"  // several messages on their way over each connection
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
