package exim_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	eximtest "github.com/mailpouch/mailpouch/internal/testserver/exim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, s *eximtest.Server) *smtp.Client {
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
		"long-lines":  "Subject: long\r\n\r\n" + strings.Repeat("x", 20000) + "\r\n" + strings.Repeat("y", 998) + "\r\n",
		"traces":      "Return-Path: <a@b>\r\nEnvelope-To: c\r\nDelivered-To: d\r\nReceived: e\r\n f\r\nReceived: g\r\n\r\nh\r\n",
		"folded":      "Subject: one\r\n two\r\n\tthree\r\nBcc: nobody@example.com\r\n\r\n\r\n\r\nblank lines around\r\n\r\n\r\n",
		"header-only": "Subject: header only\r\n\r\n",
		"8bit":        "Subject: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe \xff\xfe\r\n",
		"big":         "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("0123456", 10)+"\r\n", 20000),
		"from-line":   "Subject: from\r\n\r\nFrom the start\r\n>From quoted\r\n",
	}
}

func TestServer_Messages_byteForByte(t *testing.T) {
	s := eximtest.Start(t, eximtest.Options{})
	c := dial(t, s)
	for name, raw := range bodies() {
		mustSend(t, c, "sender@example.org", name+"@example.com", raw)
	}
	messages := s.Messages()
	if len(messages) != len(bodies()) {
		t.Errorf("%d messages, want %d", len(messages), len(bodies()))
	}
	for _, m := range messages {
		want := bodies()[strings.TrimSuffix(m.To, "@example.com")]
		if string(m.Raw) != want || m.From != "sender@example.org" {
			t.Errorf("from %s to %s: got %.200q, want %.200q", m.From, m.To, m.Raw, want)
		}
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestServer_envelopes(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{name: "null sender", from: "", to: "a@example.com"},
		{name: "any domain", from: "a@localhost", to: "b@elsewhere.example"},
		{name: "quoted", from: `"a b"@example.org`, to: `"c.d"@example.com`},
		{name: "case and tag", from: "A+b@Example.ORG", to: "C+d@example.com"},
		{name: "UTF-8", from: "jürgen@bücher.example", to: "用户@例子.example"},
	}
	s := eximtest.Start(t, eximtest.Options{})
	for _, tt := range tests {
		mustSend(t, dial(t, s), tt.from, tt.to, "Subject: x\r\n\r\n")
	}
	got := s.Messages()
	if len(got) != len(tests) {
		t.Fatalf("%d messages, want %d", len(got), len(tests))
	}
	for _, tt := range tests {
		if !slices.ContainsFunc(got, func(m eximtest.Message) bool { return m.From == tt.from && m.To == strings.ReplaceAll(tt.to, `"`, "") }) {
			t.Errorf("%s: nothing from %q to %q in %q", tt.name, tt.from, tt.to, got)
		}
	}
}

func TestServer_refusals(t *testing.T) {
	tests := []struct {
		name, from, to, header string
		code                   int
		closed                 bool
	}{
		{name: "refused", from: "a@example.org", to: "refused@example.com", code: 550},
		{name: "later", from: "a@example.org", to: "later@example.com", code: 450},
		{name: "busy", from: "a@example.org", to: "busy@example.com", code: 421},
		{name: "dropped", from: "a@example.org", to: "dropped@example.com", code: 550, closed: true},
		{name: "refused sender", from: "refused-sender@example.org", to: "a@example.com", code: 553},
		{name: "later sender", from: "later-sender@example.org", to: "a@example.com", code: 450},
		{name: "rejected", from: "a@example.org", to: "a@example.com", header: "X-Eximtest: reject\r\n", code: 550},
		{name: "deferred", from: "a@example.org", to: "a@example.com", header: "X-Eximtest: defer\r\n", code: 451},
	}
	s := eximtest.Start(t, eximtest.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			wantCode(t, send(c, tt.from, tt.to, "Subject: x\r\n"+tt.header+"\r\n"), tt.code)
			if err := c.Reset(); (err != nil) != tt.closed {
				t.Errorf("RSET after it: %v, want the connection closed: %t", err, tt.closed)
			}
		})
	}
	if got := s.Messages(); len(got) != 0 {
		t.Errorf("%d messages were delivered", len(got))
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		name    string
		opts    eximtest.Options
		check   func(*smtp.Client) error
		code    int
		without string
	}{
		{name: "size", opts: eximtest.Options{MaxMessageSize: 10000}, code: 552, check: func(c *smtp.Client) error {
			return send(c, "a@example.org", "b@example.com", "Subject: x\r\n\r\n"+strings.Repeat("0123456789\r\n", 2000))
		}},
		{name: "recipients", opts: eximtest.Options{MaxRecipients: 2}, code: 452, check: func(c *smtp.Client) error {
			return errors.Join(c.Mail("a@example.org"), c.Rcpt("1@example.com"), c.Rcpt("2@example.com"), c.Rcpt("3@example.com"))
		}},
		{name: "messages", opts: eximtest.Options{MaxMessages: 1}, code: 421, check: func(c *smtp.Client) error {
			return errors.Join(send(c, "a@example.org", "b@example.com", "Subject: x\r\n\r\n"), c.Mail("a@example.org"))
		}},
		{name: "main", opts: eximtest.Options{Main: map[string]string{
			"pipelining_advertise_hosts": "", "chunking_advertise_hosts": "",
		}}, without: "PIPELINING CHUNKING STARTTLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, eximtest.Start(t, tt.opts))
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

func TestServer_TLS(t *testing.T) {
	s := eximtest.Start(t, eximtest.Options{TLS: true})
	c := dial(t, s)
	for _, name := range []string{"PIPELINING", "SIZE", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING", "STARTTLS"} {
		if ok, _ := c.Extension(name); !ok {
			t.Errorf("%s is not offered", name)
		}
	}
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	if err := c.StartTLS(&tls.Config{RootCAs: pool, ServerName: "localhost"}); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, "a@example.org", "b@example.com", "Subject: x\r\n\r\n")
	if got := s.Messages(); len(got) != 1 || !strings.Contains(got[0].Received, "esmtps ") {
		t.Errorf("got %+v", got)
	}
}

// What is accepted outlives the server; Stop says 421, Kill nothing.
func TestServer_Restart(t *testing.T) {
	s := eximtest.Start(t, eximtest.Options{})
	c := dial(t, s)
	mustSend(t, c, "a@example.org", "1@example.com", "Subject: x\r\n\r\n")
	s.Stop()
	s.Stop()
	_, _, err := c.Text.ReadResponse(250)
	wantCode(t, err, 421)
	if c, err := smtp.Dial(s.Addr()); err == nil {
		_ = c.Close()
		t.Error("a stopped Exim takes connections")
	}
	s.Restart()
	c = dial(t, s)
	mustSend(t, c, "a@example.org", "2@example.com", "Subject: x\r\n\r\n")
	s.Restart()
	if _, line, err := c.Text.ReadResponse(250); err == nil || line != "" {
		t.Errorf("a killed Exim says %q, %v", line, err)
	}
	mustSend(t, dial(t, s), "a@example.org", "3@example.com", "Subject: x\r\n\r\n")
	s.Kill()
	var to []string
	for _, m := range s.Messages() {
		to = append(to, m.To)
	}
	slices.Sort(to)
	if got := fmt.Sprint(to); got != "[1@example.com 2@example.com 3@example.com]" {
		t.Errorf("got %s", got)
	}
	if n := s.Connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// What an Exim has of processes and files must go when its test ends.
func TestStart_leavesNothing(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		s := eximtest.Start(t, eximtest.Options{})
		dial(t, s)
		dir = filepath.Dir(s.CAFile())
		if len(processes(t, dir)) < 2 {
			t.Error("too few processes found: this test looks at the wrong place")
		}
	})
	if dir == "" {
		t.Skip("install exim4-daemon-light with .ci/deps, and run as root")
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("processes left: %q", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory left: %v", err)
	}
}

// processes lists those that have dir in their command line.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range pids {
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.Contains(string(cmdline), dir) {
			found = append(found, string(cmdline))
		}
	}
	return found
}
