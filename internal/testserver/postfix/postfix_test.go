package postfix_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, s *postfixtest.Server) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(c *smtp.Client, from, to, raw string) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(raw)); err != nil {
		return err
	}
	return w.Close()
}

func mustSend(t *testing.T, c *smtp.Client, from, to, raw string) {
	t.Helper()
	if err := send(c, from, to, raw); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code != code {
		t.Errorf("error = %v, want a %d", err, code)
	}
}

// bodies are what a server is likely to change.
func bodies() map[string]string {
	return map[string]string{
		"plain":       "Subject: plain\r\n\r\nHello.\r\n",
		"dots":        "Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n",
		"long lines":  "Subject: long\r\n\r\n" + strings.Repeat("x", 20000) + "\r\n" + strings.Repeat("y", 998) + "\r\n",
		"traces":      "Return-Path: <a@b>\r\nX-Original-To: c\r\nDelivered-To: d\r\nReceived: e\r\n f\r\nReceived: g\r\n\r\nh\r\n",
		"folded":      "Subject: one\r\n two\r\n\tthree\r\nBcc: nobody@example.com\r\n\r\n\r\n\r\nblank lines around\r\n\r\n\r\n",
		"header only": "Subject: header only\r\n\r\n",
		"8bit":        "Subject: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe \xff\xfe\r\n",
		"big":         "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("0123456", 10)+"\r\n", 20000),
		"long header": "Subject: " + strings.Repeat("z ", 100000) + "\r\n\r\nHello.\r\n",
		"from line":   "Subject: from\r\n\r\nFrom the start\r\n>From quoted\r\n",
	}
}

func TestServer_Messages_byteForByte(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{})
	c := dial(t, s)
	want := map[string]string{}
	for n := range 5 {
		for name, raw := range bodies() {
			to := fmt.Sprintf("%s.%d@example.com", strings.ReplaceAll(name, " ", "-"), n)
			mustSend(t, c, "sender@example.org", to, raw)
			want[to] = raw
		}
	}
	if err := s.Wait(t.Context(), len(want)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	messages := s.Messages()
	if len(messages) != 50 {
		t.Errorf("%d messages, want 50", len(messages))
	}
	got := map[string]string{}
	for _, m := range messages {
		got[m.To] = string(m.Raw)
		if m.From != "sender@example.org" {
			t.Errorf("sender = %q", m.From)
		}
	}
	for to, raw := range want {
		if got[to] != raw {
			t.Errorf("to %s: got %.200q, want %.200q", to, got[to], raw)
		}
	}
	if n, err := s.Connections(t.Context()); n != 1 || err != nil {
		t.Errorf("connections = %d, %v, want 1", n, err)
	}
}

func TestServer_envelopes(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{name: "null sender", from: "", to: "a@example.com"},
		{name: "any domain", from: "a@localhost", to: "b@elsewhere.example"},
		{name: "quoted", from: `"a b"@example.org`, to: `"c, d"@example.com`},
		{name: "case and tag", from: "A+b@Example.ORG", to: "C+d@Example.COM"},
		{name: "no domain", from: "a@example.org", to: "postmaster"},
		{name: "UTF-8", from: "jürgen@bücher.example", to: "用户@例子.example"},
	}
	s := postfixtest.Start(t, postfixtest.Options{})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			mustSend(t, c, tt.from, tt.to, "Subject: x\r\n\r\n")
			if err := s.Wait(t.Context(), i+1); err != nil {
				t.Fatal(err)
			}
			messages := s.Messages()
			m := messages[len(messages)-1]
			if m.From != tt.from || m.To != tt.to {
				t.Errorf("from %q to %q, want %q and %q", m.From, m.To, tt.from, tt.to)
			}
		})
	}
}

func TestServer_refusals(t *testing.T) {
	tests := []struct {
		name, from, to, header string
		code                   int
	}{
		{name: "refused", from: "a@example.org", to: "refused@example.com", code: 550},
		{name: "later", from: "a@example.org", to: "later@example.com", code: 450},
		{name: "closing", from: "a@example.org", to: "closing@example.com", code: 421},
		{name: "refused sender", from: "refused-sender@example.org", to: "a@example.com", code: 553},
		{name: "later sender", from: "later-sender@example.org", to: "a@example.com", code: 450},
		{name: "rejected", from: "a@example.org", to: "a@example.com", header: "X-Postfixtest: reject\r\n", code: 550},
		{name: "deferred", from: "a@example.org", to: "a@example.com", header: "X-Postfixtest: defer\r\n", code: 451},
	}
	s := postfixtest.Start(t, postfixtest.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantCode(t, send(dial(t, s), tt.from, tt.to, "Subject: x\r\n"+tt.header+"\r\n"), tt.code)
		})
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Messages(); len(got) != 0 {
		t.Errorf("%d messages were delivered", len(got))
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		name    string
		opts    postfixtest.Options
		check   func(*smtp.Client) error
		code    int
		without string
	}{
		{name: "size", opts: postfixtest.Options{MaxMessageSize: 10000}, code: 552, check: func(c *smtp.Client) error {
			return send(c, "a@example.org", "b@example.com", "Subject: x\r\n\r\n"+strings.Repeat("0123456789\r\n", 2000))
		}},
		{name: "recipients", opts: postfixtest.Options{MaxRecipients: 2}, code: 452, check: func(c *smtp.Client) error {
			return errors.Join(c.Mail("a@example.org"), c.Rcpt("1@example.com"), c.Rcpt("2@example.com"), c.Rcpt("3@example.com"))
		}},
		{name: "pipelining", opts: postfixtest.Options{RejectPipelining: true}, code: 554, check: func(c *smtp.Client) error {
			_, err := c.Text.Cmd("EHLO x\r\nMAIL FROM:<a@example.org>")
			if err == nil {
				_, _, err = c.Text.ReadResponse(250)
			}
			return err
		}},
		{name: "no extension", opts: postfixtest.Options{DiscardEHLO: []string{"PIPELINING", "CHUNKING"}}, without: "PIPELINING CHUNKING"},
		{name: "main.cf", opts: postfixtest.Options{Main: []string{"smtputf8_enable = no"}}, without: "SMTPUTF8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, postfixtest.Start(t, tt.opts))
			if tt.check != nil {
				wantCode(t, tt.check(c), tt.code)
			}
			for _, name := range strings.Fields(tt.without) {
				if ok, _ := c.Extension(name); ok {
					t.Errorf("%s is offered", name)
				}
			}
		})
	}
}

func TestStart_offersExtensions(t *testing.T) {
	c := dial(t, postfixtest.Start(t, postfixtest.Options{}))
	for _, name := range []string{"PIPELINING", "SIZE", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"} {
		if ok, _ := c.Extension(name); !ok {
			t.Errorf("%s is not offered", name)
		}
	}
	for _, name := range []string{"STARTTLS", "AUTH"} {
		if ok, _ := c.Extension(name); ok {
			t.Errorf("%s is offered", name)
		}
	}
}

func TestServer_TLS(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{TLS: true})
	cert, err := tls.LoadX509KeyPair(s.ClientCert())
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: s.CAs(), ServerName: "localhost"}
	c := dial(t, s)
	if err := c.StartTLS(config); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, "a@example.org", "starttls@example.com", "Subject: x\r\n\r\n")

	config = config.Clone()
	config.Certificates = []tls.Certificate{cert}
	conn, err := tls.Dial("tcp", s.TLSAddr(), config)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = smtp.NewClient(conn, "localhost"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	mustSend(t, c, "a@example.org", "implicit@example.com", "Subject: x\r\n\r\n")

	if err := s.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"starttls@example.com": "Client did not present a certificate",
		"implicit@example.com": `Client CN "postfixtest client", Issuer "postfixtest authority" (verified OK)`,
	}
	for _, m := range s.Messages() {
		if !strings.Contains(m.Received, "SMTPS id") || !strings.Contains(m.Received, want[m.To]) {
			t.Errorf("to %s: Received: %s", m.To, m.Received)
		}
	}
	if _, err := os.Stat(s.CAFile()); err != nil {
		t.Error(err)
	}
}

func TestServer_unknownAuthority(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{TLS: true})
	err := dial(t, s).StartTLS(&tls.Config{ServerName: "localhost"})
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		t.Errorf("error = %v, want the certificate refused", err)
	}
}

func TestServer_login(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{Users: map[string]string{"fred@example.com": "s3:cr=t", "anna@example.com": "other"}})
	wantCode(t, send(dial(t, s), "a@example.org", "b@example.com", "Subject: x\r\n\r\n"), 554)
	wantCode(t, dial(t, s).Auth(smtp.PlainAuth("", "fred@example.com", "wrong", "127.0.0.1")), 535)

	logins := map[string]smtp.Auth{
		"fred@example.com": smtp.PlainAuth("", "fred@example.com", "s3:cr=t", "127.0.0.1"),
		"anna@example.com": smtp.CRAMMD5Auth("anna@example.com", "other"),
	}
	for _, user := range slices.Sorted(maps.Keys(logins)) {
		c := dial(t, s)
		if _, mechs := c.Extension("AUTH"); !strings.Contains(mechs, "LOGIN") {
			t.Errorf("AUTH %s, want LOGIN among them", mechs)
		}
		if err := c.Auth(logins[user]); err != nil {
			t.Fatal(err)
		}
		mustSend(t, c, user, "b@example.com", "Subject: x\r\n\r\n")
	}
	if err := s.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Messages() {
		if !strings.Contains(m.Received, "(Authenticated sender: "+m.From+")") {
			t.Errorf("from %s: Received: %s", m.From, m.Received)
		}
	}
}

func TestStart_twoAtOnce(t *testing.T) {
	a, b := postfixtest.Start(t, postfixtest.Options{}), postfixtest.Start(t, postfixtest.Options{})
	mustSend(t, dial(t, a), "a@example.org", "a@example.com", "Subject: a\r\n\r\n")
	mustSend(t, dial(t, b), "b@example.org", "b@example.com", "Subject: b\r\n\r\n")
	for s, to := range map[*postfixtest.Server]string{a: "a@example.com", b: "b@example.com"} {
		if err := errors.Join(s.Wait(t.Context(), 1), s.Drain(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got := s.Messages(); len(got) != 1 || got[0].To != to {
			t.Errorf("messages = %v, want one to %s", got, to)
		}
	}
}

func TestServer_Restart(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{})
	mustSend(t, dial(t, s), "a@example.org", "1@example.com", "Subject: x\r\n\r\n")
	if n, err := s.Connections(t.Context()); n != 1 || err != nil { // what is logged last may be lost with who logs it
		t.Errorf("connections = %d, %v, want 1", n, err)
	}
	s.Stop()
	s.Stop()
	if c, err := smtp.Dial(s.Addr()); err == nil {
		_ = c.Close()
		t.Error("a stopped Postfix takes connections")
	}
	s.Restart()
	mustSend(t, dial(t, s), "a@example.org", "2@example.com", "Subject: x\r\n\r\n")
	if err := s.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Connections(t.Context()); n != 2 || err != nil {
		t.Errorf("connections = %d, %v, want 2", n, err)
	}
}

func TestServer_Wait_ends(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the deadline exceeded", err)
	}
}

// What a Postfix has of processes and files must go when its test ends.
func TestStart_leavesNothing(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		s := postfixtest.Start(t, postfixtest.Options{TLS: true, Users: map[string]string{"a": "b"}})
		dir = filepath.Dir(s.CAFile())
		if len(processes(t, dir)) == 0 {
			t.Error("no process found: this test looks at the wrong place")
		}
	})
	if dir == "" {
		t.Skip("install postfix and dovecot, and run as root")
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("processes left: %q", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory left: %v", err)
	}
}

// processes lists those that run in dir or have it in their command line.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range pids {
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if strings.Contains(string(cmdline), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, string(cmdline))
		}
	}
	return found
}
