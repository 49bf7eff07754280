package smtp

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/mailer"
)

// goSMTP is emersion/go-smtp's server with a memory.
type goSMTP struct {
	mu    sync.Mutex
	mails []mail
}

func (s *goSMTP) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &goSession{server: s}, nil }

type goSession struct {
	server *goSMTP
	mail   mail
	user   string
}

func (s *goSession) AuthMechanisms() []string { return []string{"PLAIN", "OAUTHBEARER"} }

func (s *goSession) Auth(mech string) (sasl.Server, error) {
	if mech == "OAUTHBEARER" {
		return sasl.NewOAuthBearerServer(func(o sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
			if o.Token != "tok3n" || o.Username != "fred" {
				return &sasl.OAuthBearerError{Status: "invalid_token"}
			}
			s.user = o.Username
			return nil
		}), nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "s3cret" {
			return gosmtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *goSession) Mail(from string, _ *gosmtp.MailOptions) error {
	if strings.HasPrefix(from, "refused") {
		return &gosmtp.SMTPError{Code: 553, EnhancedCode: gosmtp.EnhancedCode{5, 7, 1}, Message: "not you"}
	}
	s.mail = mail{from: from}
	return nil
}

func (s *goSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "refused") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "nobody"}
	}
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *goSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.body = string(body)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, s.mail)
	return nil
}

// LMTPData refuses the mail for those whose box is full.
func (s *goSession) LMTPData(r io.Reader, status gosmtp.StatusCollector) error {
	err := s.Data(r) // all of it first: go-smtp answers as soon as a status is there
	for _, to := range s.mail.to {
		if strings.HasPrefix(to, "full") {
			status.SetStatus(to, &gosmtp.SMTPError{Code: 452, EnhancedCode: gosmtp.EnhancedCode{4, 2, 2}, Message: "full"})
			continue
		}
		status.SetStatus(to, nil)
	}
	return err
}

func (s *goSession) Reset()        {}
func (s *goSession) Logout() error { return nil }

func startGoSMTP(t *testing.T, lmtp bool) (*goSMTP, string) {
	t.Helper()
	backend := &goSMTP{}
	server := gosmtp.NewServer(backend)
	server.Domain, server.LMTP, server.AllowInsecureAuth, server.EnableSMTPUTF8 = "localhost", lmtp, true, true
	server.ErrorLog = discard{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
	return backend, l.Addr().String()
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

func TestGoSMTP(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			server, addr := startGoSMTP(t, false)
			cfg.Addrs, cfg.Username, cfg.Password = []string{addr}, "fred", "s3cret"
			messages := []*mailer.EmailMessage{
				letter("a@x"), letter("refused@x"), letter("b@x", "refused@y"), letter("c@x", "one@y", "refused@y", "two@y"), letter("d@x", "ü@y"),
			}
			if got, want := fates(sendAll(t, newBackend(t, cfg), messages)), "sent permanent permanent partly sent"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if len(server.mails) != 3 {
				t.Fatalf("%d messages", len(server.mails))
			}
			for i, j := range []int{0, 3, 4} {
				var want bytes.Buffer
				_, _ = messages[j].WriteTo(&want)
				if got := server.mails[i].body; got != want.String() {
					t.Errorf("message %d: got %q", j, got)
				}
			}
		})
	}
}

func TestGoSMTP_LMTP(t *testing.T) {
	server, addr := startGoSMTP(t, true)
	b := newBackend(t, Config{Addrs: []string{addr}, LMTP: true})
	results := sendAll(t, b, []*mailer.EmailMessage{letter("a@x", "one@y", "full@y", "refused@y", "two@y"), letter("b@x"), letter("c@x", "full@y")})
	if got := fates(results); got != "partly sent temporary" || len(results[0].Refused) != 2 || len(server.mails) != 3 {
		t.Errorf("got %s, %v, %d messages", got, results[0].Refused, len(server.mails))
	}
}

func TestGoSMTP_login(t *testing.T) {
	for _, tt := range []struct{ password, token, want string }{
		{"s3cret", "", "sent"}, {"other", "", "unavailable"}, {"", "tok3n", "sent"}, {"", "old", "unavailable"},
	} {
		_, addr := startGoSMTP(t, false)
		cfg := Config{Addrs: []string{addr}, Username: "fred", Password: tt.password}
		if tt.token != "" {
			cfg.TokenSource = TokenFunc(func(context.Context) (string, error) { return tt.token, nil })
		}
		results := sendAll(t, newBackend(t, cfg), letters(1))
		if got := fates(results); got != tt.want {
			t.Errorf("%v: got %s, %v", tt, got, results[0].Err)
		}
	}
}

// missing skips the test, and fails it in CI, where it would be skipped for ever.
func missing(t *testing.T, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// startSink starts Postfix's smtp-sink with options, on a free port.
func startSink(t *testing.T, options ...string) string {
	t.Helper()
	path := "/usr/sbin/smtp-sink"
	if _, err := os.Stat(path); err != nil {
		missing(t, "needs smtp-sink: install the package postfix")
	}
	if os.Getuid() == 0 {
		options = append(options, "-u", "nobody")
	}
	return run(t, func(addr string) *exec.Cmd {
		return exec.Command(path, slices.Concat(options, []string{addr, "100"})...)
	})
}

// run runs a server on a free port until the test is over, and waits until it can be reached there.
func run(t *testing.T, command func(addr string) *exec.Cmd) (addr string) {
	t.Helper()
	output := filepath.Join(t.TempDir(), "out")
	log := func() string {
		text, _ := os.ReadFile(output)
		return strings.ReplaceAll(string(text), "address already in use", "Address already in use") // as Python writes it
	}
	var p *testserver.Process
	t.Cleanup(func() {
		if p != nil {
			p.Kill()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", addr, log())
		}
	})
	err := testserver.Launch(func() (err error) {
		if p != nil {
			p.Kill()
		}
		addr = testserver.FreeAddr(t)
		cmd := command(addr)
		cmd.Dir = filepath.Dir(output)
		if p, err = testserver.Start(cmd, output); err != nil {
			return err
		}
		return testserver.Poll(t.Context(), p, func() error { return greets(addr) })
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func greets(addr string) error {
	c, err := net.DialTimeout("tcp", addr, testserver.Timeout)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(testserver.Timeout))
	_, err = bufio.NewReader(c).ReadString('\n')
	return err
}

// TestSMTPSink: the faults that Postfix's test server knows.
func TestSMTPSink(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []string
		want    string
	}{
		{"good", nil, "sent sent sent sent sent"},
		{"no ESMTP", []string{"-e"}, "sent sent sent sent sent"},
		{"no EHLO at all", []string{"-f", "EHLO"}, "sent sent sent sent sent"},
		{"no PIPELINING", []string{"-p"}, "sent sent sent sent sent"},
		{"MAIL fails", []string{"-f", "MAIL"}, "permanent permanent permanent permanent permanent"},
		{"RCPT later", []string{"-r", "RCPT"}, "temporary temporary temporary temporary temporary"},
		{"DATA fails", []string{"-f", "DATA"}, "permanent permanent permanent permanent permanent"},
		{"dot fails", []string{"-f", "."}, "permanent permanent permanent permanent permanent"},
		{"dot later", []string{"-r", "."}, "temporary temporary temporary temporary temporary"},
		{"disconnects at MAIL", []string{"-q", "MAIL"}, "temporary temporary temporary unavailable unavailable"},
		{"421 at RCPT", []string{"-Q", "RCPT"}, "unavailable unavailable unavailable unavailable unavailable"},
		{"disconnects at the dot", []string{"-q", "."}, "unknown unknown unknown unavailable unavailable"},
		{"421 at the dot", []string{"-Q", "."}, "unavailable unavailable unavailable unavailable unavailable"},
		{"abort in DATA", []string{"-A", "0"}, "permanent permanent permanent permanent permanent"},
		{"greeting fails", []string{"-f", "CONNECT"}, "unavailable unavailable unavailable unavailable unavailable"},
		{"ends after two", []string{"-M", "2"}, "sent unknown unavailable unavailable unavailable"}, // and does not say so
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := startSink(t, tt.options...)
			b := newBackend(t, Config{Addrs: []string{addr}, Hostname: "client.example", CommandTimeout: 20 * time.Second, DataTimeout: 20 * time.Second})
			results := sendAll(t, b, letters(5))
			if got := fates(results); got != tt.want {
				t.Errorf("got %s, want %s: %v", got, tt.want, results[0].Err)
			}
		})
	}
}

// aioHandler keeps each message in a file, and refuses whom it is told to.
const aioHandler = `
import os
class Handler:
    def __init__(self, dir):
        self.dir, self.n = dir, 0
    @classmethod
    def from_cli(cls, parser, *args):
        return cls(*args)
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 nobody"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"
    async def handle_DATA(self, server, session, envelope):
        self.n += 1
        with open(os.path.join(self.dir, "%03d" % self.n), "wb") as f:
            f.write(envelope.original_content)
        return "250 2.0.0 kept"
`

func TestAiosmtpd(t *testing.T) {
	if err := exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run(); err != nil {
		missing(t, "needs aiosmtpd: install the package python3-aiosmtpd")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "aiohandler.py"), []byte(aioHandler), 0o600); err != nil {
		t.Fatal(err)
	}
	box := filepath.Join(dir, "box")
	if err := os.Mkdir(box, 0o700); err != nil {
		t.Fatal(err)
	}
	addr := run(t, func(addr string) *exec.Cmd {
		cmd := exec.Command("/usr/bin/python3", "-m", "aiosmtpd", "-n", "-u", "-l", addr, "-s", "100000", "-c", "aiohandler.Handler", box)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
		return cmd
	})

	big := letter("c@x")
	big.Body = strings.Repeat("0123456789\n", 10000)
	messages := []*mailer.EmailMessage{letter("a@x"), letter("b@x", "refused@y"), big, letter("d@x", "refused@y", "ü@y"), letter("e@x")}
	messages[4].Body = strings.Repeat(".\n..\n", 1000)
	b := newBackend(t, Config{Addrs: []string{addr}, Hostname: "client.example", CommandTimeout: 20 * time.Second})
	if got, want := fates(sendAll(t, b, messages)), "sent permanent permanent partly sent"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	files, err := filepath.Glob(filepath.Join(box, "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%d messages, %v", len(files), err)
	}
	slices.Sort(files)
	for i, j := range []int{0, 3, 4} {
		got, _ := os.ReadFile(files[i])
		var want bytes.Buffer
		_, _ = messages[j].WriteTo(&want)
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("message %d: got %q", j, got)
		}
	}

}
