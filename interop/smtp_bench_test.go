package interop

import (
	"context"
	"fmt"
	netsmtp "net/smtp"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	gomail "github.com/wneessen/go-mail"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/mailer"
)

// BenchmarkSMTP sends 2 kB texts over one connection that stays open to the same
// server, rendering included: our three ways, net/smtp and go-mail. The server is in
// this process, so that its time is in the figures too.
func BenchmarkSMTP(b *testing.B) {
	for _, way := range []struct {
		name string
		cfg  smtp.Config
	}{
		{"strict", smtp.Config{Pipelining: smtp.Off}},
		{"pipelined", smtp.Config{}},
		{"chunked", smtp.Config{Chunking: smtp.Auto}},
	} {
		b.Run(way.name, func(b *testing.B) {
			benchServer(b, func(addr string) { sendOurs(b, addr, way.cfg) })
		})
	}
	b.Run("net-smtp", func(b *testing.B) { benchServer(b, func(addr string) { sendNetSMTP(b, addr) }) })
	b.Run("go-mail", func(b *testing.B) { benchServer(b, func(addr string) { sendGoMail(b, addr) }) })
	b.Run("smtp-source", func(b *testing.B) { benchServer(b, func(addr string) { sendSource(b, addr) }) })
}

// sendSource runs Postfix's own load generator, which renders nothing: the limit of
// the server with a strict client.
func sendSource(b *testing.B, addr string) {
	b.Helper()
	program, err := exec.LookPath("smtp-source")
	if err != nil {
		program = "/usr/sbin/smtp-source"
	}
	if _, err := os.Stat(program); err != nil {
		b.Skip("smtp-source is not installed (Debian: apt-get install postfix)")
	}
	send := exec.CommandContext(b.Context(), program, "-d", "-s", "1", "-m", strconv.Itoa(b.N), "-l", "2048", addr)
	b.ResetTimer()
	if out, err := send.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	b.StopTimer()
}

// benchServer runs send against a server of its own and makes sure that all arrived.
func benchServer(b *testing.B, send func(addr string)) {
	b.Helper()
	s, err := catcher.Start(catcher.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	b.ReportAllocs()
	send(s.Addr())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
	if err := s.Wait(b.Context(), b.N); err != nil {
		b.Error(err)
	}
}

func sendOurs(b *testing.B, addr string, cfg smtp.Config) {
	b.Helper()
	cfg.Addrs = []string{addr}
	backend, err := smtp.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = backend.Close() }()
	if _, err := backend.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	batch := make([]*mailer.EmailMessage, 100)
	for i := range batch {
		batch[i] = benchCase{}.ours()
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(batch) {
		part := batch[:min(left, len(batch))]
		if sent, err := backend.SendMessages(b.Context(), part); sent != len(part) {
			b.Fatal(err)
		}
	}
	b.StopTimer()
}

func sendNetSMTP(b *testing.B, addr string) {
	b.Helper()
	c, err := netsmtp.Dial(addr)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	m := benchCase{}.ours()
	b.ResetTimer()
	for range b.N {
		if err := netSMTPOne(c, m); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
}

func netSMTPOne(c *netsmtp.Client, m *mailer.EmailMessage) error {
	if err := c.Mail("shop@example.com"); err != nil {
		return err
	}
	if err := c.Rcpt("fred@example.org"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := m.WriteTo(w); err != nil {
		return err
	}
	return w.Close()
}

func sendGoMail(b *testing.B, addr string) {
	b.Helper()
	host, port, _ := strings.Cut(addr, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		b.Fatal(err)
	}
	c, err := gomail.NewClient(host, gomail.WithPort(number), gomail.WithTLSPolicy(gomail.NoTLS))
	if err != nil {
		b.Fatal(err)
	}
	if err := c.DialWithContext(context.Background()); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	m := benchCase{}.theirs(b)
	b.ResetTimer()
	for i := range b.N {
		if err := c.Send(m); err != nil {
			b.Fatal(fmt.Errorf("message %d: %w", i, err))
		}
	}
	b.StopTimer()
}
