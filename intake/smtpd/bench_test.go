package smtpd_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// sessions is how many connections smtp-source has, and how many goroutines hand over without it.
const sessions = 50

// BenchmarkIntake measures mails of 2 kB from Postfix's smtp-source: into Redis, which writes to its file every second; to a go-smtp server
// that throws them away; and, without SMTP, the hand-over alone.
//
//	go test ./intake/smtpd -run - -bench Intake -benchtime 30000x
func BenchmarkIntake(b *testing.B) {
	for _, persistence := range []redistest.Persistence{redistest.EverySec, redistest.Always} {
		b.Run("smtpd/"+string(persistence), func(b *testing.B) {
			client, queue := newQueue(b, persistence)
			s := serve(b, intake.New(client, queue, new(intake.Keys)), trusting())
			smtpSource(b, s.Addrs()[0].String())
			perScript(b, client)
		})
		b.Run("Enqueue/"+string(persistence), func(b *testing.B) {
			client, queue := newQueue(b, persistence)
			enqueue(b, queue)
			perScript(b, client)
		})
	}
	b.Run("go-smtp, thrown away", func(b *testing.B) { smtpSource(b, discarding(b)) })
	b.Run("smtpd, thrown away", func(b *testing.B) {
		smtpSource(b, serve(b, nowhere{}, trusting()).Addrs()[0].String())
	})
}

func newQueue(b *testing.B, persistence redistest.Persistence) (redis.UniversalClient, *tasks.Queue) {
	client := redistest.Start(b, redistest.Options{AppendOnly: persistence}).Client(b)
	return client, tasks.NewQueue(client, tasks.QueueConfig{})
}

// perScript reports how many mails Redis took at once.
func perScript(b *testing.B, client redis.UniversalClient) {
	b.Helper()
	stats, err := client.InfoMap(b.Context(), "commandstats").Result()
	if err != nil {
		b.Fatal(err)
	}
	var calls int
	if _, err := fmt.Sscanf(stats["Commandstats"]["cmdstat_evalsha"], "calls=%d,", &calls); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/float64(calls), "mails/script")
}

// smtpSource has smtp-source send b.N mails.
func smtpSource(b *testing.B, addr string) {
	b.Helper()
	path, err := testserver.LookPath("smtp-source")
	if err != nil {
		testserver.Missing(b, "smtp-source is not installed (Debian: apt-get install postfix)")
	}
	cmd := exec.CommandContext(b.Context(), path, "-d", "-s", fmt.Sprint(min(sessions, b.N)), "-m", fmt.Sprint(b.N), "-l", "2000", "-M", "client.example.com",
		"-f", "ann@example.com", "-t", "bob@example.org", "inet:"+addr)
	measure(b, func() {
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Errorf("smtp-source: %v\n%s", err, out)
		}
	})
}

// measure reports how many mails a second do does, and how much time of a processor this process takes for one.
func measure(b *testing.B, do func()) {
	b.Helper()
	before := processorTime(b)
	b.ResetTimer()
	do()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-us/mail")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// enqueue hands over b.N mails.
func enqueue(b *testing.B, queue *tasks.Queue) {
	b.Helper()
	raw := []byte("From: <ann@example.com>\r\nTo: <bob@example.org>\r\nDate: Fri, 27 Nov 2026 06:00:00 +0000\r\nMessage-Id: <1@client.example.com>\r\n\r\n" +
		strings.Repeat(strings.Repeat("x", 78)+"\r\n", 24))
	measure(b, func() {
		var wg sync.WaitGroup
		var sent atomic.Int64
		for range min(sessions, b.N) {
			wg.Go(func() {
				for sent.Add(1) <= int64(b.N) {
					m := &mailer.EmailMessage{Raw: raw, FromEmail: "ann@example.com", To: []string{"bob@example.org"}}
					if _, err := queue.Enqueue(b.Context(), m); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// discarding starts a server of go-smtp that throws all mail away.
func discarding(b *testing.B) (addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return discard{}, nil }))
	server.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	b.Cleanup(func() {
		_ = server.Close()
		if err := <-done; err != nil {
			b.Errorf("go-smtp: %v", err)
		}
	})
	return l.Addr().String()
}

// nowhere takes everything and keeps nothing.
type nowhere struct{}

func (nowhere) Find(string) *intake.Key             { return nil }
func (nowhere) Current(key *intake.Key) *intake.Key { return key }

func (nowhere) Submit(context.Context, *intake.Key, *mailer.EmailMessage, mailer.Options) (string, error) {
	return "ID", nil
}

// discard is nowhere for go-smtp.
type discard struct{}

func (discard) Reset()                               {}
func (discard) Logout() error                        { return nil }
func (discard) Mail(string, *smtp.MailOptions) error { return nil }
func (discard) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (discard) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
