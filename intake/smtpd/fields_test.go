package smtpd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// oneMessage hands a message in over a new connection, and returns the reply.
func oneMessage(t *testing.T, addr net.Addr, login, raw string) string {
	t.Helper()
	c := dialAddr(t, addr)
	c.expect("220")
	c.talk("> EHLO client\n250")
	if login != "" {
		c.talk("> AUTH PLAIN " + base64Of("\x00apikey\x00"+login) + "\n235")
	}
	c.talk("> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250\n> DATA\n354")
	c.send(raw + ".\r\n")
	return c.reply()
}

// Fields that are for us are obeyed and taken out. All others keep their bytes.
func TestFields(t *testing.T) {
	t.Parallel()
	d := &desk{}
	s := serve(t, d, trusting())
	got := oneMessage(t, s.Addrs()[0], "", "From: ann@example.com\r\nIdempotency-Key: order-1\r\nX-MAILPOUCH-queue:\r\n critical\r\nSubject: x\r\n\ty\r\n"+
		"X-Mailpouch-Mailer: marketing\r\nX-Mailpouch-Tag: receipt\r\nX-Mailpouch-Tag: =?utf-8?q?gr=C3=BCn?=\r\nX-Mailpouch-Mailing: news\r\n"+
		"X-Mailpouch-Schedule: 2030-01-02T03:04:05+01:00\r\nX-Mailpouched: no\r\n\r\nX-Mailpouch-Queue: low\r\n")
	if !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	h := d.one(t)
	at := h.options.ProcessAt
	h.options.ProcessAt = time.Time{}
	want := mailer.Options{IdempotencyKey: "order-1", Queue: "critical", Using: "marketing", Tags: []string{"receipt", "grün"}, Mailing: "news"}
	if !reflect.DeepEqual(h.options, want) || !at.Equal(time.Date(2030, 1, 2, 2, 4, 5, 0, time.UTC)) {
		t.Errorf("options = %+v at %v", h.options, at)
	}
	if want := "From: ann@example.com\r\nSubject: x\r\n\ty\r\nX-Mailpouched: no\r\n\r\nX-Mailpouch-Queue: low\r\n"; h.raw() != want {
		t.Errorf("raw = %q, want %q", h.raw(), want)
	}
}

func TestFields_refused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ field, want string }{
		{"X-Mailpouch-Queue: a\r\nX-Mailpouch-Queue: b", "550 5.6.0 X-Mailpouch-Queue: is there twice"},
		{"X-Mailpouch-Queu: a", "550 5.6.0 X-Mailpouch-Queu: there is no such field"},
		{"X-Mailpouch-Schedule: tomorrow", "550 5.6.0 X-Mailpouch-Schedule: is not a time"},
		{"X-Mailpouch-Queue: a b", "550 5.6.0 mailer: \"a b\" cannot be the name of a queue"},
		{"X-Mailpouch-Tag: " + strings.Repeat("x", 65), "550 5.6.0 mailer: tag"},
		{"Idempotency-Key: " + strings.Repeat("x", 256), "550 5.6.0 mailer: idempotency_key"},
		{"Idempotency-Key:", "550 5.6.0 Idempotency-Key: is empty"},
		{"Idempotency-Key: a\r\nIdempotency-Key: a", "550 5.6.0 Idempotency-Key: is there twice"},
	} {
		d := &desk{}
		s := serve(t, d, trusting())
		got := oneMessage(t, s.Addrs()[0], "", "From: ann@example.com\r\n"+tt.field+"\r\n\r\nx\r\n")
		if !strings.HasPrefix(got, tt.want) || len(d.taken()) > 0 {
			t.Errorf("%q: %q, want %q", tt.field, got, tt.want)
		}
	}
}

// What a client may choose is the key's to say. The key of a message anybody may choose.
func TestFields_key(t *testing.T) {
	t.Parallel()
	d, _, secret := withKey(intake.ChooseTags)
	s := serve(t, d, trusting())
	for field, want := range map[string]string{
		"X-Mailpouch-Tag: a":                         "250",
		"Idempotency-Key: a":                         "250",
		"X-Mailpouch-Queue: a":                       "550 5.7.1 X-Mailpouch-Queue: the API key does not allow it",
		"X-Mailpouch-Mailer: a":                      "550 5.7.1 X-Mailpouch-Mailer:",
		"X-Mailpouch-Mailing: a":                     "550 5.7.1 X-Mailpouch-Mailing:",
		"X-Mailpouch-Schedule: 2030-01-02T03:04:05Z": "550 5.7.1 X-Mailpouch-Schedule:",
	} {
		if got := oneMessage(t, s.Addrs()[0], secret, "From: ann@example.com\r\n"+field+"\r\n\r\nx\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	}
}

// A line that is no field ends the header, and nothing gets into the field that we put in front.
func TestHeader_broken(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                                "",
		"Just a line.\r\n":                "\r\nJust a line.\r\n",
		" folded\r\nSubject: x\r\n\r\n":   "\r\n folded\r\nSubject: x\r\n\r\n",
		"\r\nbody\r\n":                    "\r\nbody\r\n",
		"Subject: x\r\nJust a line.\r\n":  "Subject: x\r\n\r\nJust a line.\r\n",
		"From ann Fri Nov 27\r\nA: b\r\n": "\r\nFrom ann Fri Nov 27\r\nA: b\r\n",
		"A : b\r\n c\r\n\r\n":             "A : b\r\n c\r\n\r\n",
		": x\r\n":                         "\r\n: x\r\n",
		"A: b\r\n":                        "A: b\r\n",
	} {
		d := &desk{}
		s := serve(t, d, trusting())
		if got := oneMessage(t, s.Addrs()[0], "", raw); !strings.HasPrefix(got, "250") {
			t.Errorf("%q: %q", raw, got)
			continue
		}
		_, got, _ := strings.Cut(string(d.one(t).message.Raw), " +0000\r\n")
		if got != want {
			t.Errorf("%q: raw = %q, want %q", raw, got, want)
		}
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	for hops, want := range map[int]string{100: "250", 101: "554 5.4.6"} {
		s := serve(t, &desk{}, trusting())
		if got := oneMessage(t, s.Addrs()[0], "", strings.Repeat("RECEIVED: by mx.example.com; Fri, 27 Nov 2026 06:00:00 +0000\r\n", hops)+message); !strings.HasPrefix(got, want) {
			t.Errorf("%d hops: %q, want %q", hops, got, want)
		}
	}
}

// What an error of the intake is to a client.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&intake.NotAllowedError{Field: "from", Value: "eve@example.net", Reason: "is not among the senders of this key"}, `550 5.7.1 from: "eve@example.net" is not`},
		{&intake.RateError{Rate: "1/s", RetryAfter: 3 * time.Second}, "450 4.7.1 Too many messages, try again in 3s"},
		{&mailer.BadHeaderError{Field: "raw", Reason: "has a NUL"}, "550 5.6.0 bad header: raw: has a NUL"},
		{&mailer.InvalidMessageError{Field: "raw", Reason: "is\r\nbad ü"}, "550 5.6.0 invalid message: raw: is??bad ?"},
		{&mailer.IdempotencyError{Key: "a", ID: "b"}, "554 5.6.0 idempotency key"},
		{&mailer.DeadLetterError{ID: "a", Reason: "b"}, "554 5.6.0 the same message is a dead letter"},
		{&mailer.UnknownMailerError{Name: "a"}, "554 5.6.0 mailer: the mailer"},
		{&mailer.SendError{Class: mailer.Permanent, Err: &mailer.NameError{What: "queue", Name: "a b"}}, "554 5.6.0"},
		{&mailer.SendError{Class: mailer.Unavailable, Err: errors.New("dial tcp 10.0.0.1:6379: refused")}, "451 4.3.0 The queue cannot be reached, try again later"},
		{&mailer.SendError{Class: mailer.Unknown, Err: errors.New("i/o timeout")}, "451 4.3.0 The queue has not answered"},
		{&mailer.SendError{Class: mailer.Temporary, Err: errors.New("old workers")}, "451 4.3.0"},
		{fmt.Errorf("%s", strings.Repeat("x", 10_000)), "451 4.3.0 xxx"},
		{context.DeadlineExceeded, "451 4.3.0"},
	} {
		d := &desk{answer: func(context.Context, handedIn) error { return tt.err }}
		s := serve(t, d, trusting())
		if got := oneMessage(t, s.Addrs()[0], "", message); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

// The log says once that the queue is away, and once that it is back, however many messages are refused.
// Of what fails here in a way that nobody foresaw the log has where it was, and nothing of the message.
func TestLog_panic(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	cfg := trusting()
	cfg.Log = zerolog.New(log)
	c := dial(t, serve(t, &desk{answer: func(_ context.Context, h handedIn) error { panic(string(h.message.Raw)) }}, cfg))
	c.begin()
	c.send(message + ".\r\n")
	c.expect("421 4.3.0")
	c.expect("")
	if got := log.String(); !strings.Contains(got, `"panic":"with a string"`) || !strings.Contains(got, "fields_test.go") || strings.Contains(got, "It works") {
		t.Errorf("the log: %s", got)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	next := make(chan error, 1)
	d := &desk{answer: func(context.Context, handedIn) error { return <-next }}
	cfg := trusting()
	var log lockedBuffer
	cfg.Log = zerolog.New(&log)
	s := serve(t, d, cfg)
	for _, err := range []error{
		nil, &mailer.SendError{Class: mailer.Unavailable, Err: errors.New("refused")}, &mailer.SendError{Class: mailer.Unknown, Err: errors.New("timeout")},
		&mailer.InvalidMessageError{Field: "raw", Reason: "is bad"}, &intake.NotAllowedError{Field: "from"}, nil, nil,
	} {
		next <- err
		oneMessage(t, s.Addrs()[0], "", message)
	}
	want := `{"level":"error","error":": refused","message":"smtpd: the queue takes no mail: clients are told to try again later"}
{"level":"info","message":"smtpd: the queue takes mail again"}
`
	if got := log.String(); got != want {
		t.Errorf("log:\n%s", got)
	}
}
