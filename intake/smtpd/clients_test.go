package smtpd_test

import (
	"context"
	"fmt"
	"mime"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/internal/testserver/node"
	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// python is Debian's own, for which python3-django is installed.
const python = "/usr/bin/python3"

// need skips the test if a program is not installed.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := testserver.LookPath(program)
	if err != nil {
		testserver.Missing(t, program+" is not installed (Debian: apt-get install "+debian+")")
	}
	return path
}

// run runs a program.
func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*testserver.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SSL_CERT_") })
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
	}
	return string(out)
}

// Programs hand in the bytes of a file, over STARTTLS and with a key, and a worker delivers the same bytes.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		more string // behind the file
		send func(t *testing.T, s *site, file string)
	}{
		{"swaks", "end\r\n", func(t *testing.T, s *site, file string) {
			if err := os.WriteFile(file, []byte(everything()+"end"), 0o600); err != nil { // it adds a line end, and takes a lone dot away
				t.Fatal(err)
			}
			for _, login := range []string{"PLAIN", "LOGIN"} {
				run(t, "", need(t, "swaks", "swaks"), "--server", "localhost", "--port", s.port(), "--tls", "--tls-verify", "--tls-ca-path", s.caFile,
					"--auth", login, "--auth-user", "apikey", "--auth-password", s.secret, "--from", "ann@example.com", "--to", "bob@example.org",
					"--ehlo", "client.example.com", "--suppress-data", "--data", "@"+file)
			}
		}},
		{"msmtp", "", func(t *testing.T, s *site, file string) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, login := range []string{"plain", "login"} {
				run(t, strings.ReplaceAll(string(raw), "\r\n", "\n"), need(t, "msmtp", "msmtp"), "--file=/dev/null", "--host=localhost", "--port="+s.port(),
					"--tls=on", "--tls-trust-file="+s.caFile, "--auth="+login, "--user=apikey", "--passwordeval=echo "+s.secret,
					"--from=ann@example.com", "bob@example.org")
			}
		}},
		{"smtplib", "", func(t *testing.T, s *site, file string) {
			for range 2 {
				run(t, "", need(t, python, "python3"), "testdata/send.py", "smtplib", s.port(), s.secret, s.caFile, file)
			}
		}},
		{"smtplib, LMTP", "", func(t *testing.T, s *site, file string) {
			for range 2 {
				run(t, "", need(t, python, "python3"), "testdata/send.py", "lmtp", s.server.Addrs()[1].String(), "-", "-", file)
			}
		}},
		{"our own", "", func(t *testing.T, s *site, file string) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b, err := smtp.New(smtp.Config{
				Addrs: []string{"localhost:" + s.port()}, TLS: smtp.TLSStart, CAFile: s.caFile, Username: "apikey", Password: s.secret, Chunking: smtp.Auto,
			})
			if err != nil {
				t.Fatal(err)
			}
			m := &mailer.EmailMessage{FromEmail: "ann@example.com", To: []string{"bob@example.org"}, Raw: raw}
			if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m, m}); sent != 2 || err != nil {
				t.Fatalf("sent %d: %v", sent, err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, redistest.Options{}, smtpd.Config{TrustSockets: true, Listeners: []smtpd.Listener{
				{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "unix", Address: socket(t), LMTP: true},
			}})
			file := filepath.Join(t.TempDir(), "message")
			if err := os.WriteFile(file, []byte(everything()), 0o600); err != nil {
				t.Fatal(err)
			}
			tt.send(t, s, file)
			s.work()
			for _, m := range s.delivered(2) {
				if m.From != "ann@example.com" || !slices.Equal(m.To, []string{"bob@example.org"}) {
					t.Errorf("from %q to %q", m.From, m.To)
				}
				s.checkDelivered(m, everything()+tt.more)
			}
		})
	}
}

// Mail libraries make the message themselves. Their Idempotency-Key counts, and a blind copy stays blind.
func TestLibraries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		send func(t *testing.T, s *site)
		more int // messages
	}{
		{"Django", func(t *testing.T, s *site) {
			if exec.CommandContext(t.Context(), python, "-c", "import django").Run() != nil {
				testserver.Missing(t, "needs Django for "+python+": apt-get install python3-django")
			}
			run(t, "", need(t, python, "python3"), "testdata/send.py", "django", s.port(), s.secret, s.caFile)
		}, 1},
		{"Nodemailer", func(t *testing.T, s *site) {
			dir := node.Scripts(t, "testdata/nodemailer")
			out := run(t, "", need(t, "node", "nodejs"), filepath.Join(dir, "send.js"), s.port(), s.secret, s.caFile)
			if !strings.HasPrefix(out, "250 2.0.0 Ok: queued as key-") {
				t.Errorf("reply %q", out)
			}
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, redistest.Options{}, smtpd.Config{})
			tt.send(t, s)
			s.work()
			all := s.delivered(1 + tt.more)
			m := all[slices.IndexFunc(all, func(m catcher.Message) bool { return len(m.To) > 1 })]
			slices.Sort(m.To)
			if m.From != "ann@example.com" || !slices.Equal(m.To, []string{"bob@example.org", "carl@example.org", "trudy@example.org"}) {
				t.Errorf("from %q to %q", m.From, m.To)
			}
			text := string(m.Raw)
			parsed, err := mail.ReadMessage(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
			if err != nil || subject != "Grüße" {
				t.Errorf("subject %q, %v", subject, err)
			}
			for _, part := range []string{"\r\n\r\n.\r\nIt works.\r\n..\r\n", "AAECDQouDQr/"} {
				if !strings.Contains(text, part) {
					t.Errorf("%q is not in\n%s", part, text)
				}
			}
			for _, no := range []string{"trudy", "Idempotency-Key", "X-Mailpouch"} {
				if strings.Contains(text, no) {
					t.Errorf("%q is in\n%s", no, text)
				}
			}
		})
	}
}

// A Postfix hands all its mail to us as its relayhost, over TLS and connections that it keeps, and its bounces with the null sender.
func TestPostfix(t *testing.T) {
	t.Parallel()
	s := newSite(t, redistest.Options{}, smtpd.Config{Networks: local()})
	relaying := postfixtest.Start(t, postfixtest.Options{Main: []string{
		"virtual_mailbox_domains =", "relayhost = [127.0.0.1]:" + s.port(), "relay_domains = static:all", "relay_transport = smtp:[127.0.0.1]:" + s.port(),
		"smtp_tls_security_level = verify", "smtp_tls_CAfile = " + s.caFile, "smtp_tls_verify_cert_match = localhost",
		"smtp_tls_secure_cert_match = localhost", "smtp_connection_cache_on_demand = yes", "message_size_limit = 60000000",
	}})
	b, err := smtp.New(smtp.Config{Addrs: []string{relaying.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	const mails = 20
	messages := make([]*mailer.EmailMessage, mails)
	for i := range messages {
		to := []string{fmt.Sprintf("bob%d@example.org", i), "carl@example.org"}
		messages[i] = &mailer.EmailMessage{
			FromEmail: "ann@example.com", To: to,
			Raw: []byte(strings.Replace(everything(), "<everything@", fmt.Sprintf("<%d@", i), 1)),
		}
	}
	// Bigger than we take: Postfix makes a bounce of it, which we get too.
	messages = append(messages, &mailer.EmailMessage{
		FromEmail: "ann@example.com", To: []string{"big@example.org"}, Raw: []byte(message + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 300_000)),
	})
	if sent, err := b.SendMessages(t.Context(), messages); sent != len(messages) || err != nil {
		t.Fatalf("sent %d: %v", sent, err)
	}
	s.work()
	seen := map[string]bool{}
	for _, m := range s.delivered(mails + 1) {
		if m.From == "" {
			if !slices.Equal(m.To, []string{"ann@example.com"}) || !strings.Contains(string(m.Raw), "big@example.org") {
				t.Errorf("bounce to %q:\n%.2000s", m.To, m.Raw)
			}
			continue
		}
		field, rest := cutReceived(string(m.Raw))
		theirs, rest := cutReceived(rest)
		if !strings.Contains(field, "by mx.example.com (Mailpouch) with ESMTPS id ") || !strings.Contains(theirs, "(Postfix)") {
			t.Errorf("fields %q, %q", field, theirs)
		}
		at := slices.IndexFunc(messages, func(want *mailer.EmailMessage) bool { return string(want.Raw) == rest })
		if at < 0 || m.From != "ann@example.com" || len(m.To) != 2 || seen[m.To[0]] {
			t.Errorf("from %q to %q: %.200q", m.From, m.To, rest)
		}
		seen[m.To[0]] = true
	}
}

// Redis decides: a message is accepted when it has it.
func TestRedis(t *testing.T) {
	t.Parallel()
	s := newSite(t, redistest.Options{AppendOnly: redistest.Always}, smtpd.Config{Networks: local(), QueueTimeout: 5 * time.Second})
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "250 2.0.0") {
		t.Fatal(got)
	}
	s.redis.Kill()
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "451 4.3.0") {
		t.Errorf("without Redis: %q", got)
	}
	s.redis.Restart()
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "250 2.0.0") {
		t.Errorf("with Redis again: %q", got)
	}
	s.redis.Pause()
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "451 4.3.0 The queue has not answered") {
		t.Errorf("with a silent Redis: %q", got)
	}
	s.redis.Resume()
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "250 2.0.0") {
		t.Errorf("with a Redis that answers again: %q", got)
	}
}

func TestRedis_full(t *testing.T) {
	t.Parallel()
	s := newSite(t, redistest.Options{MaxMemory: "500kb"}, smtpd.Config{Networks: local()})
	if got := oneMessage(t, s.server.Addrs()[0], "", everything()); !strings.HasPrefix(got, "452 4.3.1") {
		t.Errorf("with a full Redis: %q", got)
	}
}

// What a key does not allow is refused, and an idempotency key counts.
func TestKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, redistest.Options{}, smtpd.Config{Networks: local()})
	send := func(raw string) string { return oneMessage(t, s.server.Addrs()[0], s.secret, raw) }
	if got := send("From: eve@example.net\r\n\r\nx\r\n"); !strings.HasPrefix(got, "550 5.7.1 from: ") {
		t.Errorf("from somebody else: %q", got)
	}
	first, again := send("Idempotency-Key: 1\r\n"+message), send("Idempotency-Key: 1\r\n"+message)
	if !strings.HasPrefix(first, "250 2.0.0 Ok: queued as key-shop") || first != again {
		t.Errorf("handed in twice: %q, then %q", first, again)
	}
	if got := send("Idempotency-Key: 1\r\nX-Other: x\r\n" + message); !strings.HasPrefix(got, "554 5.6.0 ") {
		t.Errorf("another message with the key: %q", got)
	}
	if got := send("X-Mailpouch-Tag: api-key:other\r\n" + message); !strings.HasPrefix(got, "550 5.7.1 ") {
		t.Errorf("with the tag of another key: %q", got)
	}
	if got := send(strings.Repeat("X-Mailpouch-Tag: x\r\n", 8) + message); !strings.HasPrefix(got, "550 5.6.0 mailer: tag") {
		t.Errorf("with as many tags as there may be without the key's: %q", got)
	}
	if got := send(message + "\x00\r\n"); !strings.HasPrefix(got, "550 5.6.0 ") {
		t.Errorf("with a NUL: %q", got)
	}
	s.work()
	s.delivered(1)
}
