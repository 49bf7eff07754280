package catcher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg catcher.Config) *catcher.Server {
	t.Helper()
	s, err := catcher.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, s *catcher.Server) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c *smtp.Client, raw string, to ...string) {
	t.Helper()
	if err := c.SendMail("sender@example.org", to, strings.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code != code {
		t.Errorf("error = %v, want a %d", err, code)
	}
}

func TestServer_keepsWhatWasSent(t *testing.T) {
	s := start(t, catcher.Config{})
	c := dial(t, s)
	want := []string{
		"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n",
		"Subject: 8bit\r\n\r\n\xc3\xbc \xff \x00\r\n",
		"Subject: long\r\n\r\n" + strings.Repeat("x", 100000) + "\r\n",
		"\r\n",
	}
	for _, raw := range want {
		send(t, c, raw, "a@example.com", "b@example.com")
	}
	if err := s.Wait(t.Context(), len(want)); err != nil {
		t.Fatal(err)
	}
	got := s.Messages()
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i, m := range got {
		if string(m.Raw) != want[i] {
			t.Errorf("message %d = %.100q, want %.100q", i, m.Raw, want[i])
		}
		if m.From != "sender@example.org" || !slices.Equal(m.To, []string{"a@example.com", "b@example.com"}) {
			t.Errorf("envelope = %s, %s", m.From, m.To)
		}
		if m.Number != i+1 || m.Connection != 1 || m.Time.IsZero() || m.TLS || m.Username != "" {
			t.Errorf("message %d = %+v", i, m)
		}
	}
}

// command sends a line and wants a reply, as a client that speaks for itself would.
func command(t *testing.T, c *rawClient, line string, code int) {
	t.Helper()
	if _, err := io.WriteString(c.conn, line); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadResponse(code); err != nil {
		t.Fatalf("%.40q: %v", line, err)
	}
}

func TestServer_BDAT(t *testing.T) {
	s := start(t, catcher.Config{})
	c := rawDial(t, s)
	long := strings.Repeat("y", 5000)
	command(t, c, "EHLO test\r\n", 250)
	command(t, c, "MAIL FROM:<a@example.org>\r\n", 250)
	command(t, c, "RCPT TO:<b@example.com>\r\n", 250)
	command(t, c, "BDAT 3\r\n.\r\n", 250)
	command(t, c, fmt.Sprintf("BDAT %d LAST\r\n%s", len(long), long), 250)
	// A message that is given up is not kept, and does no harm to the next one. (That
	// one comes by DATA: go-smtp 0.25.1 has a data race with another BDAT here.)
	command(t, c, "MAIL FROM:<a@example.org>\r\n", 250)
	command(t, c, "RCPT TO:<b@example.com>\r\n", 250)
	command(t, c, "BDAT 3\r\nabc", 250)
	command(t, c, "RSET\r\n", 250)
	command(t, c, "MAIL FROM:<c@example.org>\r\n", 250)
	command(t, c, "RCPT TO:<d@example.com>\r\n", 250)
	command(t, c, "DATA\r\n", 354)
	command(t, c, "ok\r\n.\r\n", 250)
	got := s.Messages()
	if len(got) != 2 || string(got[0].Raw) != ".\r\n"+long || string(got[1].Raw) != "ok\r\n" || got[1].From != "c@example.org" {
		t.Errorf("messages = %.200s", fmt.Sprint(got))
	}
}

func TestServer_boundedMemory(t *testing.T) {
	tests := []struct {
		name string
		cfg  catcher.Config
		want []string
	}{
		{name: "number", cfg: catcher.Config{MaxKeep: 2}, want: []string{"4\r\n", "5\r\n"}},
		{name: "bytes", cfg: catcher.Config{MaxKeepBytes: 10}, want: []string{"3\r\n", "4\r\n", "5\r\n"}},
		{name: "none", cfg: catcher.Config{MaxKeep: -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.cfg)
			c := dial(t, s)
			for n := range 5 {
				send(t, c, fmt.Sprintf("%d\r\n", n+1), "a@example.com")
			}
			var got []string
			for _, m := range s.Messages() {
				got = append(got, string(m.Raw))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("kept %q, want %q", got, tt.want)
			}
			if n := s.Stats().Accepted; n != 5 {
				t.Errorf("accepted = %d, want 5", n)
			}
		})
	}
}

func TestServer_Stats(t *testing.T) {
	var mu sync.Mutex
	var numbers []int
	s := start(t, catcher.Config{OnMessage: func(m catcher.Message) {
		mu.Lock()
		defer mu.Unlock()
		numbers = append(numbers, m.Number)
	}})
	var wg sync.WaitGroup
	clients := []*smtp.Client{dial(t, s), dial(t, s), dial(t, s)}
	for i, c := range clients {
		wg.Go(func() {
			for range i {
				if err := c.SendMail("a@example.org", []string{"b@example.com"}, strings.NewReader("x\r\n")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := s.Stats()
	slices.Sort(got.PerConnection)
	want := catcher.Stats{Accepted: 3, Opened: 3, Open: 3, PerConnection: []int{0, 1, 2}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stats = %+v, want %+v", got, want)
	}
	if want := []int{1, 2, 3}; !slices.Equal(numbers, want) {
		t.Errorf("reported %v, want %v", numbers, want)
	}
}

func TestConfig_Decide(t *testing.T) {
	s := start(t, catcher.Config{Decide: func(_ context.Context, s catcher.Step) error {
		switch {
		case s.Command == "MAIL" && s.From == "bad@example.org":
			return &smtp.SMTPError{Code: 553, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not you"}
		case s.Command == "RCPT" && s.To[0] == "bad@example.com":
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody"}
		case s.Command == "DATA" && bytes.Contains(s.Raw, []byte("bad")):
			return errors.New("not now")
		}
		return nil
	}})
	c := dial(t, s)
	send(t, c, "good\r\n", "a@example.com")
	wantCode(t, c.Mail("bad@example.org", nil), 553)
	wantCode(t, c.SendMail("a@example.org", []string{"bad@example.com"}, strings.NewReader("x\r\n")), 550)
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.SendMail("a@example.org", []string{"a@example.com"}, strings.NewReader("bad\r\n")), 451)
	if got := s.Stats(); got.Accepted != 1 || got.Refused != 3 {
		t.Errorf("stats = %+v", got)
	}

	// A recipient that was refused is none of the message's.
	if err := c.Mail("a@example.org", nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.Rcpt("bad@example.com", nil), 550)
	if err := c.Rcpt("good@example.com", nil); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.Messages()[1].To; !slices.Equal(got, []string{"good@example.com"}) {
		t.Errorf("recipients = %q", got)
	}
}

func TestConfig_limits(t *testing.T) {
	s := start(t, catcher.Config{MaxMessageBytes: 1000, MaxRecipients: 1})
	c := dial(t, s)
	wantCode(t, c.SendMail("a@example.org", []string{"a@example.com"}, strings.NewReader(strings.Repeat("0123456789\r\n", 100))), 552)
	wantCode(t, c.SendMail("a@example.org", []string{"a@example.com", "b@example.com"}, strings.NewReader("x\r\n")), 452)
	if size, ok := c.MaxMessageSize(); size != 1000 || !ok {
		t.Errorf("SIZE %d, %v", size, ok)
	}
}

func TestConfig_Login(t *testing.T) {
	s := start(t, catcher.Config{Login: func(username, password string) error {
		if username != "fred" || password != "secret" {
			return errors.New("unknown")
		}
		return nil
	}})
	wantCode(t, dial(t, s).Auth(sasl.NewPlainClient("", "fred", "wrong")), 535)
	wantCode(t, dial(t, s).Auth(sasl.NewLoginClient("fred", "wrong")), 535)
	for _, client := range []sasl.Client{sasl.NewPlainClient("", "fred", "secret"), sasl.NewLoginClient("fred", "secret")} {
		c := dial(t, s)
		if err := c.Auth(client); err != nil {
			t.Fatal(err)
		}
		send(t, c, "x\r\n", "a@example.com")
	}
	// LOGIN as some clients speak it: no initial response.
	c := rawDial(t, s)
	command(t, c, "EHLO test\r\n", 250)
	command(t, c, "AUTH LOGIN\r\n", 334)
	command(t, c, "ZnJlZA==\r\n", 334)
	command(t, c, "c2VjcmV0\r\n", 235)
	for _, m := range s.Messages() {
		if m.Username != "fred" {
			t.Errorf("username = %q", m.Username)
		}
	}
	plain := dial(t, start(t, catcher.Config{}))
	if ok, _ := plain.Extension("AUTH"); ok {
		t.Error("AUTH is offered without a Login")
	}
}

func TestConfig_IdleTimeout(t *testing.T) {
	c := rawDial(t, start(t, catcher.Config{IdleTimeout: 20 * time.Millisecond}))
	if _, _, err := c.ReadResponse(421); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadLine(); !errors.Is(err, io.EOF) {
		t.Errorf("after the 421: %v, want the end", err)
	}
}

func TestServer_Drop(t *testing.T) {
	s := start(t, catcher.Config{})
	c := dial(t, s)
	send(t, c, "x\r\n", "a@example.com")
	s.Drop()
	if err := c.Noop(); err == nil {
		t.Error("a dropped connection answers")
	}
	send(t, dial(t, s), "x\r\n", "a@example.com")
	if got := s.Stats(); got.Opened != 2 || got.Open != 1 || got.Accepted != 2 {
		t.Errorf("stats = %+v", got)
	}
}

func TestServer_Close(t *testing.T) {
	asked := make(chan struct{})
	s, err := catcher.Start(catcher.Config{Decide: func(ctx context.Context, _ catcher.Step) error {
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	idle, c := dial(t, s), dial(t, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Mail("a@example.org", nil) })
	<-asked
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := idle.Noop(); err == nil {
		t.Error("a closed server answers")
	}
	if err := s.Wait(t.Context(), 1); err == nil {
		t.Error("a closed server promises another message")
	}
	if got := s.Stats(); got.Open != 0 {
		t.Errorf("%d connections open after Close", got.Open)
	}
}

func TestServer_Wait_ends(t *testing.T) {
	s := start(t, catcher.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestStart_refuses(t *testing.T) {
	taken := start(t, catcher.Config{}).Addr()
	for _, cfg := range []catcher.Config{{Addr: taken}, {Addr: "no address"}, {ImplicitTLS: true}} {
		if s, err := catcher.Start(cfg); err == nil {
			_ = s.Close()
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// What is deleted makes room, changes no count and is heard of; what is left stays as it was.
func TestServer_Delete(t *testing.T) {
	s := start(t, catcher.Config{MaxKeep: 10, MaxKeepBytes: 40})
	c := dial(t, s)
	for range 4 {
		send(t, c, "12345678\r\n", "a@example.com")
	}
	before := s.Messages()
	seen := s.Changes()
	changed := make(chan int, 1)
	go func() {
		n, err := s.WaitChange(t.Context(), seen)
		if err != nil {
			t.Error(err)
		}
		changed <- n
	}()
	if n := s.Delete(func(m catcher.Message) bool { return m.Number%2 == 1 }); n != 2 {
		t.Errorf("%d deleted", n)
	}
	if n := <-changed; n != seen+1 {
		t.Errorf("%d changes, want %d", n, seen+1)
	}
	if n := s.Delete(func(catcher.Message) bool { return false }); n != 0 || s.Changes() != seen+1 {
		t.Errorf("%d deleted, %d changes", n, s.Changes())
	}
	send(t, c, "12345678\r\n", "a@example.com")
	send(t, c, "12345678\r\n", "a@example.com") // four messages have room
	var numbers []int
	for _, m := range s.Messages() {
		numbers = append(numbers, m.Number)
	}
	if !slices.Equal(numbers, []int{2, 4, 5, 6}) || s.Stats().Accepted != 6 || len(before) != 4 || before[0].Number != 1 {
		t.Errorf("kept %v, stats %+v", numbers, s.Stats())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.WaitChange(ctx, s.Changes()); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	raw := []byte("To: =?utf-8?q?M=C3=BCller=2C_J=C3=B6rg?= <joerg@example.com>,\r\n \"Doe, Ann\" <ann@example.com>, bob@example.com\r\nCc: not an address\r\nCc:\r\ncc: x@example.com\r\n\r\n")
	for name, want := range map[string]string{
		"To":  `[{Müller, Jörg joerg@example.com} {Doe, Ann ann@example.com} { bob@example.com}]`,
		"Cc":  `[{not an address } { x@example.com}]`,
		"Bcc": "[]",
	} {
		if got := fmt.Sprint(catcher.Addresses(raw, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
