package scenario

import (
	"encoding/json"
	"fmt"
	"net"

	"github.com/mailpouch/mailpouch/bench/harness"
)

// stack is one way to put mails into Redis and to deliver them.
type stack struct {
	fill  func(b *harness.Bench, r *harness.Redis, n int)
	start starter
	sends bool    // mails: else the queue says how far it is
	warms float64 // the share of the mails after which it is at its speed
}

// starter starts processes, which are up and wait then.
type starter func(*harness.Bench, *harness.Redis, harness.MailServer) crew

// crew are processes that deliver mails once they are released.
type crew struct {
	processes []*harness.Process
	release   func()
}

// ours is one worker process with these settings beside the default ones.
func ours(fill func(*harness.Bench, *harness.Redis, int), settings ...string) stack {
	return stack{fill: fill, start: workers(1, settings...), sends: true}
}

// connections is the setting of how many there are.
func connections(n int) string { return fmt.Sprint("EMAIL_CONNECTIONS=", n) }

// workers starts processes of "worker run" with the default settings and those given.
func workers(n int, settings ...string) starter {
	return func(b *harness.Bench, r *harness.Redis, s harness.MailServer) crew {
		return held(b, r, func() []*harness.Process {
			all := make([]*harness.Process, 0, n)
			for range n {
				all = append(all, startWorker(b, r, s, nil, settings...))
			}
			return all
		})
	}
}

func startWorker(b *harness.Bench, r *harness.Redis, s harness.MailServer, flags []string, settings ...string) *harness.Process {
	host, port, err := net.SplitHostPort(s.Addr())
	b.Check(err)
	return harness.Start(b, b.Programs.Worker, append([]string{"run"}, flags...), append([]string{
		"REDIS_URL=" + r.URL, "EMAIL_HOST=" + host, "EMAIL_PORT=" + port, "EMAIL_HOSTNAME=worker.example", "LOG_LEVEL=warn",
	}, settings...)...)
}

// usual is what people write themselves: asynq and a sender of that kind over 20 connections.
func usual(kind string, concurrency int, flags ...string) stack {
	return stack{fill: baselineTasks, start: peer(kind, concurrency, flags...), sends: true}
}

// idleAsynq gets the tasks of ours and does nothing with them.
var idleAsynq = stack{fill: singly, start: peer(empty, emptyConcurrency)}

// peer starts one of the others that use asynq.
func peer(kind string, concurrency int, flags ...string) starter {
	return func(b *harness.Bench, r *harness.Redis, s harness.MailServer) crew {
		args := append([]string{
			kind, "-redis", r.URL, "-smtp", s.Addr(), "-connections", fmt.Sprint(manyConnections), "-concurrency", fmt.Sprint(concurrency),
		}, flags...)
		return held(b, r, func() []*harness.Process { return []*harness.Process{harness.Start(b, b.Programs.Peer, args)} })
	}
}

// held starts processes that use asynq while its queues are paused.
func held(b *harness.Bench, r *harness.Redis, start func() []*harness.Process) crew {
	c := crew{release: r.Hold(b)}
	c.processes = start()
	for _, p := range c.processes {
		r.AwaitWorker(b, p)
	}
	return c
}

// nodeStack is BullMQ and Nodemailer with a pool of as many connections.
func nodeStack(concurrency int) stack {
	return stack{
		sends: true,
		warms: 0.5,
		fill: func(b *harness.Bench, r *harness.Redis, n int) {
			mail, err := json.Marshal(baselineMail(0))
			b.Check(err)
			harness.InstallBullMQ(b).Fill(b, r, n, string(mail))
		},
		start: func(b *harness.Bench, r *harness.Redis, s harness.MailServer) crew {
			p, release := harness.InstallBullMQ(b).Work(b, r, s, manyConnections, concurrency)
			return crew{[]*harness.Process{p}, release}
		},
	}
}

// smtpSink is a mail server of others.
func smtpSink(b *harness.Bench) harness.MailServer { return harness.StartSMTPSink(b) }

// ownSink is our own mail server.
func ownSink(b *harness.Bench) harness.MailServer { return harness.StartSink(b, 0) }
