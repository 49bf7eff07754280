package scenario

import (
	"fmt"
	"net"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/internal/testserver/postfix"
)

// intake measures how fast mail is handed in over SMTP, and is safe when the client is told so.
func intake(size Size) Scenario {
	n := size.of(30_000, 3_000)
	return Scenario{
		Name:  intakeName,
		Title: "Handing in over SMTP",
		About: fmt.Sprintf("smtp-source hands in %s mails of 2 kB over %d connections that it keeps open, and over %d. A mail counts when its 250 has come: Redis has it then, in its append-only file, "+
			"or Postfix in its queue. Redis writes that file to the disk once a second (appendfsync everysec), so a crash of the machine can lose the last second; with always it "+
			"does so before each reply, as Postfix does. Postfix puts the mails on hold, so that it does nothing else with them. What smtp-source itself can do is beside it: it "+
			"hands the same mails to smtp-sink, which keeps none.", report.Number(float64(n)), manyClients, fewClients),
		Metrics: metrics(rate, intakeTime, server, memory, network),
		Entries: []Entry{
			{everySec, fmt.Sprintf("worker intake, %d connections, appendfsync everysec", manyClients), true, as("", handingIn(n, manyClients, harness.AppendOnly))},
			{everySec20, fmt.Sprintf("worker intake, %d connections, appendfsync everysec", fewClients), true, as("", handingIn(n, fewClients, harness.AppendOnly))},
			{always, fmt.Sprintf("worker intake, %d connections, appendfsync always", manyClients), true, as("", handingIn(n, manyClients, harness.AppendAlways))},
			{always20, fmt.Sprintf("worker intake, %d connections, appendfsync always", fewClients), true, as("", handingIn(n, fewClients, harness.AppendAlways))},
			{postfixQueue, fmt.Sprintf("Postfix, its queue, %d connections", manyClients), false, as("", handingToPostfix(n))},
			{source, fmt.Sprintf("smtp-sink, which keeps nothing, %d connections", manyClients), false, as("", handingToSink(n))},
		},
	}
}

// handingIn measures "worker intake" and its Redis.
func handingIn(n, clients int, storage harness.Storage) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		r, addr := harness.StartRedis(b, storage), testserver.FreeAddr(b)
		p := harness.Start(b, b.Programs.Worker, []string{"intake"}, "REDIS_URL="+r.URL, "EMAIL_SUBMISSION_ADDR="+addr, "EMAIL_SUBMISSION_NETWORKS=127.0.0.1/32",
			"EMAIL_HTTP_ADDR=off", "EMAIL_HOSTNAME=intake.example", "LOG_LEVEL=warn")
		p.Listens(b, addr)
		handIn(b, addr, clients, warmth) // connections to Redis are open, scripts are loaded
		before, used := r.Usage(b), p.CPU(b)
		took := handIn(b, addr, clients, n)
		after := r.Usage(b)
		if left, err := r.Left(b.Context()); err != nil || left != warmth+n {
			b.Errorf("%d mails were handed in, and Redis has %d: %v", warmth+n, left, err)
		}
		return report.Sample{
			rate:       float64(n) / took.Seconds(),
			intakeTime: micros(p.CPU(b)-used) / float64(n),
			server:     micros(after.CPU-before.CPU) / float64(n),
			memory:     float64(p.PeakMemory(b)) / 1e6,
			network:    float64(after.Network-before.Network) / float64(n),
		}
	}
}

func handingToPostfix(n int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		harness.FindPostfix(b, "smtp-source")
		// It logs nothing: a process of Postfix that logs waits for its postlogd, which does not always start.
		s := postfix.Start(b, postfix.Options{Main: []string{
			"maillog_file =",
			"smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject", "smtpd_sender_restrictions =", "header_checks =", "content_filter =",
		}})
		handIn(b, s.Addr(), manyClients, warmth)
		return report.Sample{rate: float64(n) / handIn(b, s.Addr(), manyClients, n).Seconds()}
	}
}

func handingToSink(n int) func(*harness.Bench) report.Sample {
	return func(b *harness.Bench) report.Sample {
		s := smtpSink(b)
		return report.Sample{rate: float64(n) / handIn(b, s.Addr(), manyClients, n).Seconds()}
	}
}

// How many connections smtp-source has: more clients share more round trips to Redis.
const (
	manyClients = 50
	fewClients  = 20
)

// warmth is how many mails are handed in before it is measured.
const warmth = 500

// handIn hands mails in and returns how long that took. smtp-source fails if one of them is not accepted.
func handIn(b *harness.Bench, addr string, clients, n int) time.Duration {
	host, port, err := net.SplitHostPort(addr)
	b.Check(err)
	start := time.Now()
	p := harness.Start(b, harness.FindPostfix(b, "smtp-source"), []string{
		"-d", "-s", fmt.Sprint(clients), "-m", fmt.Sprint(n), "-l", "2048", "-f", "shop@example.com", "-t", "ann@example.net", net.JoinHostPort(host, port),
	})
	p.Wait(b)
	return time.Since(start)
}
