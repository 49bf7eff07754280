package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

var busy = reply(451, gosmtp.EnhancedCode{4, 3, 0}, "busy")

// All mail goes to those of the setting: single and bulk, finished messages, blind copies, and a program that has written its task
// itself. Nobody else is even named to the server, and each message says whom it was for.
func TestOverride(t *testing.T) {
	h := newHouse(t, map[string]string{"EMAIL_OVERRIDE_RECIPIENTS": "QA <qa@example.com>, qb@example.com"})
	raw := []byte("From: shop@example.com\r\nTo: bob@example.org\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <raw@app.example>\r\nSubject: Finished\r\n\r\nHello\r\n")
	finished, err := mailer.ParseRaw(raw)
	if err != nil {
		t.Fatal(err)
	}
	h.send(tasks.Options{IdempotencyKey: "one"}, message(1, to("Ann <ann@example.org>"), bcc("hidden@example.org"), func(m *mailer.EmailMessage) {
		m.Cc, m.Headers = []string{"bob@example.org"}, map[string]string{"To": "everybody@example.org", "X-Original-To": "theirs"}
	}))
	h.send(tasks.Options{AtMostOnce: true}, message(2))
	h.send(tasks.Options{}, finished)
	h.send(tasks.Options{}, message(3), message(4), message(5, to("bob@example.org"))) // one task
	h.ended(map[tasks.Action]int{tasks.ActionSent: 6})

	if asked := h.server.wasAsked(); !slices.Equal(asked, []string{"qa@example.com", "qb@example.com"}) {
		t.Errorf("the server was asked for %q", asked)
	}
	originals := map[string]string{}
	for _, m := range h.server.taken() {
		subject := strings.Join(m.fields("Subject"), "")
		originals[subject] = strings.Join(m.fields("X-Original-To"), " ")
		if subject != "Finished" && !slices.Equal(m.fields("To"), []string{"QA <qa@example.com>, qb@example.com"}) || len(m.fields("Cc")) > 0 {
			t.Errorf("%s shows To: %q, Cc: %q", subject, m.fields("To"), m.fields("Cc"))
		}
		if subject == "Finished" && m.data != "X-Original-To: bob@example.org\r\n"+string(raw) {
			t.Errorf("the finished message has become\n%s", m.data)
		}
	}
	for subject, want := range map[string]string{
		"Letter 1": "ann@example.org bob@example.org hidden@example.org theirs", "Letter 2": "ann@example.org", "Finished": "bob@example.org",
		"Letter 3": "ann@example.org", "Letter 5": "bob@example.org",
	} {
		if originals[subject] != want {
			t.Errorf("%s was for %q, want %q", subject, originals[subject], want)
		}
	}
}

// What the server says to those in their place is said of the message: it comes again whole and with the same bytes, and if one of
// them has it, it is through.
func TestOverride_results(t *testing.T) {
	h := newHouse(t, map[string]string{"EMAIL_OVERRIDE_RECIPIENTS": "qa@example.com, qb@example.com"})
	h.says(func(s *server) {
		s.data = func(n int) *gosmtp.SMTPError {
			if n < 3 {
				return busy
			}
			return nil
		}
	})
	h.send(tasks.Options{IdempotencyKey: "one"}, message(1, to("ann@example.org", "bob@example.org"), bcc("hidden@example.org")))
	h.ended(map[tasks.Action]int{tasks.ActionRetry: 2, tasks.ActionSent: 1})
	tries := h.server.all()
	if len(tries) != 3 || tries[0].data != tries[1].data || tries[0].data != tries[2].data || len(tries[0].fields("X-Original-To")) != 3 {
		t.Errorf("the tries differ: %+v", tries)
	}

	h.says(func(s *server) {
		s.rcpt = func(to string) *gosmtp.SMTPError {
			if to == "qb@example.com" {
				return reply(550, gosmtp.EnhancedCode{5, 1, 1}, "no such user")
			}
			return nil
		}
	})
	h.send(tasks.Options{IdempotencyKey: "two"}, message(2, to("ann@example.org", "bob@example.org")))
	h.ended(map[tasks.Action]int{tasks.ActionRetry: 2, tasks.ActionSent: 2})
	h.says(func(s *server) {
		s.rcpt = func(string) *gosmtp.SMTPError { return reply(550, gosmtp.EnhancedCode{5, 1, 1}, "no such user") }
	})
	h.send(tasks.Options{IdempotencyKey: "three"}, message(3, to("ann@example.org", "bob@example.org")))
	all := h.ended(map[tasks.Action]int{tasks.ActionRetry: 2, tasks.ActionSent: 2, tasks.ActionDead: 1})
	if why := dead(all)["ann@example.org bob@example.org"]; why != "550 5.1.1 no such user (RCPT <qa@example.com>)" {
		t.Errorf("dead letters: %q", dead(all))
	}
}

// Who is not allowed becomes a dead letter, and the others get the mail. What is refused for now comes again for those alone, and
// nobody else is ever named to the server. A letter that is replayed after the setting is another one goes out.
func TestAllowed(t *testing.T) {
	h := newHouse(t, map[string]string{"EMAIL_ALLOWED_RECIPIENTS": ".example.com, Ann@Example.org, bücher.example"})
	first := true
	h.says(func(s *server) {
		s.rcpt = func(to string) *gosmtp.SMTPError {
			if to == "qa@sub.example.com" && first {
				first = false
				return busy
			}
			return nil
		}
	})
	h.send(tasks.Options{IdempotencyKey: "some"}, message(1, to("ann@example.org", "qa@sub.example.com", "bob@example.org"), bcc("hidden@example.org", "a@xn--bcher-kva.example")))
	h.ended(map[tasks.Action]int{tasks.ActionSent: 2, tasks.ActionDead: 1})
	h.send(tasks.Options{IdempotencyKey: "none"}, message(2, to("bob@example.org", "notexample.com@example.net")))
	h.send(tasks.Options{}, message(3, to("bob@example.org")), message(4, to("ann@example.org")), message(5, to("x@notexample.com"), bcc("qa@example.com")))
	all := h.ended(map[tasks.Action]int{tasks.ActionSent: 4, tasks.ActionDead: 4})

	if asked := h.server.wasAsked(); !slices.Equal(asked, []string{"a@xn--bcher-kva.example", "ann@example.org", "qa@example.com", "qa@sub.example.com"}) {
		t.Errorf("the server was asked for %q", asked)
	}
	for recipients, want := range map[string]string{
		"bob@example.org hidden@example.org":         "not allowed here by EMAIL_ALLOWED_RECIPIENTS (policy <bob@example.org>, <hidden@example.org>)",
		"bob@example.org notexample.com@example.net": "not allowed here by EMAIL_ALLOWED_RECIPIENTS (policy <bob@example.org>, <notexample.com@example.net>)",
		"bob@example.org":                            "not allowed here by EMAIL_ALLOWED_RECIPIENTS (policy <bob@example.org>)",
		"x@notexample.com":                           "not allowed here by EMAIL_ALLOWED_RECIPIENTS (policy <x@notexample.com>)",
	} {
		if got := dead(all)[recipients]; got != want {
			t.Errorf("%s: %q, want %q; all: %q", recipients, got, want, dead(all))
		}
	}
	copies := map[string]int{}
	for _, m := range h.server.taken() {
		for _, addr := range m.to {
			copies[strings.Join(m.fields("Subject"), "")+" "+addr]++
		}
	}
	for mail, n := range copies {
		if n != 1 {
			t.Errorf("%s arrived %d times", mail, n)
		}
	}
	if len(copies) != 5 {
		t.Errorf("copies: %v", copies)
	}
}

// With both, who is not allowed is a dead letter, and what is left goes to somebody else. A mailer with a name has its own.
func TestAllowed_and_override(t *testing.T) {
	h := newHouse(t, map[string]string{
		"EMAIL_ALLOWED_RECIPIENTS": "example.org", "EMAIL_OVERRIDE_RECIPIENTS": "qa@example.com",
		"EMAIL_MAILERS": "open", "EMAIL_OPEN_HOST": "127.0.0.1", "EMAIL_OPEN_PORT": "{port}",
		"EMAIL_OPEN_ALLOWED_RECIPIENTS": "*", "EMAIL_OPEN_OVERRIDE_RECIPIENTS": "qb@example.com",
	})
	h.send(tasks.Options{}, message(1, to("ann@example.org", "x@example.net")))
	h.send(tasks.Options{Using: "open"}, message(2, to("ann@example.org", "x@example.net")))
	all := h.ended(map[tasks.Action]int{tasks.ActionSent: 2, tasks.ActionDead: 1})
	if dead(all)["x@example.net"] == "" {
		t.Errorf("dead letters: %q", dead(all))
	}
	for _, m := range h.server.taken() {
		got := strings.Join(m.to, " ") + " for " + strings.Join(m.fields("X-Original-To"), " ")
		if got != "qa@example.com for ann@example.org" && got != "qb@example.com for ann@example.org x@example.net" {
			t.Errorf("one went to %s", got)
		}
	}
}

// A program that sends without a queue has the same rules.
func TestRules_direct(t *testing.T) {
	h := newHouse(t, map[string]string{"EMAIL_ALLOWED_RECIPIENTS": "example.org", "EMAIL_OVERRIDE_RECIPIENTS": "qa@example.com"})
	s, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	mail, err := backends.Builtin().Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := mail.Send(t.Context(), message(1, to("ann@example.org", "x@example.net")), message(2, to("x@example.net")), message(3, to("ann@example.org")))
	var some *mailer.SendError
	if sent != 2 || !errors.As(mailer.ErrorAt(err, 0), &some) || !some.Accepted || some.Refused[0].Recipient != "x@example.net" {
		t.Errorf("%d sent, %v", sent, err)
	}
	if err := mailer.ErrorAt(err, 1); mailer.ClassOf(err) != mailer.Permanent {
		t.Errorf("the message that nobody may get: %v", err)
	}
	if asked := h.server.wasAsked(); !slices.Equal(asked, []string{"qa@example.com"}) {
		t.Errorf("the server was asked for %q", asked)
	}
}

// Addresses that no message can have are an error with the name of the setting, before anything is sent.
func TestRules_problems(t *testing.T) {
	for _, d := range settings.Describe(settings.Default()) {
		t.Setenv(d.Name, "")
	}
	t.Setenv("EMAIL_OVERRIDE_RECIPIENTS", "qa@exa..mple.com")
	s, _, err := settings.Load()
	if err == nil {
		_, err = backends.Builtin().New("smtp", s)
	}
	var problems settings.Problems
	if !errors.As(err, &problems) || len(problems) != 1 || problems[0].Name != "EMAIL_OVERRIDE_RECIPIENTS" {
		t.Errorf("got %v", err)
	}
}

// hook is a BeforeSend by the subject of a message.
type hook map[string]tasks.BeforeSendFunc

func (h hook) BeforeSend(ctx context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
	if f := h[m.Message.Subject]; f != nil {
		return f(ctx, m)
	}
	return m.Message, nil
}

// Hooks change, redirect and stop messages, one of them after the other. What panics or fails costs its own message a try.
func TestHooks(t *testing.T) {
	failures := map[string]int{}
	once := func(subject string, fail func() error) tasks.BeforeSendFunc {
		return func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
			if failures[subject]++; failures[subject] == 1 {
				return nil, fail()
			}
			return m.Message, nil
		}
	}
	first := hook{
		"Letter 1": func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
			c := *m.Message
			c.Subject = fmt.Sprint("Changed ", m.Queue, m.Mailer, " ", m.Tags, " ", m.TaskID != "")
			return &c, nil
		},
		"Letter 2": func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
			return m.Message.Redirect("carl@example.net"), nil
		},
		"Letter 3": func(context.Context, tasks.Outgoing) (*mailer.EmailMessage, error) {
			return nil, tasks.Stop("unsubscribed")
		},
		"Letter 4": once("4", func() error { panic("secret of a message") }),
		"Letter 5": once("5", func() error { return errors.New("the list cannot be read") }),
		// A hook cannot hold the relay.
		"Letter 6": once("6", func() error { return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect} }),
		"Letter 7": func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
			return m.Message.WithRecipients([]string{"ann@example.org"}), &mailer.SendError{Refused: []*mailer.SendError{
				{Class: mailer.Permanent, Step: mailer.StepPolicy, Text: "bounced before", Recipient: "bob@example.org"},
			}}
		},
	}
	second := tasks.BeforeSendFunc(func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
		return m.Message.WithTrace(mailer.Field{Name: "X-Second", Value: m.Message.To[0]}), nil
	})
	h := newHouse(t, nil, first, second)
	h.send(tasks.Options{Tags: []string{"sale"}}, message(1))
	batch := make([]*mailer.EmailMessage, 0, 7)
	for n := 2; n <= 8; n++ {
		batch = append(batch, message(n, to("ann@example.org", "bob@example.org")))
	}
	h.send(tasks.Options{}, batch...)
	all := h.ended(map[tasks.Action]int{tasks.ActionSent: 7, tasks.ActionDead: 2, tasks.ActionRetry: 3})
	want := map[string]string{"ann@example.org bob@example.org": "unsubscribed (policy)", "bob@example.org": "bounced before (policy <bob@example.org>)"}
	for recipients, reason := range want {
		if got := dead(all)[recipients]; got != reason {
			t.Errorf("%s: %q, want %q", recipients, got, reason)
		}
	}
	got := map[string]string{}
	for _, m := range h.server.taken() {
		got[strings.Join(m.fields("Subject"), "")] = strings.Join(m.to, " ") + " " + strings.Join(m.fields("X-Second"), " ")
	}
	for subject, want := range map[string]string{
		"Changed default [sale] true": "ann@example.org ann@example.org",
		"Letter 2":                    "carl@example.net carl@example.net",
		"Letter 4":                    "ann@example.org bob@example.org ann@example.org",
		"Letter 7":                    "ann@example.org ann@example.org",
		"Letter 8":                    "ann@example.org bob@example.org ann@example.org",
	} {
		if got[subject] != want {
			t.Errorf("%q went to %q, want %q; all: %q", subject, got[subject], want, got)
		}
	}
	if !h.logged("a hook panicked: with a string") || h.logged("secret of a message") || h.logged("holding all messages") {
		t.Error("the log does not say so")
	}
}

// A hook is asked anew for what is left of a message, and the bytes are the same. It is not asked for a message that is cancelled
// or has expired.
func TestHooks_retries(t *testing.T) {
	var asked []string
	h := newHouse(t, nil, tasks.BeforeSendFunc(func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
		e, err := m.Message.Envelope()
		asked = append(asked, m.Message.Subject+" "+strings.Join(e.To, " "))
		return m.Message.WithTrace(mailer.Field{Name: "X-Hook", Value: m.TaskID[:0] + "same"}), err
	}))
	puts := 0
	h.says(func(s *server) {
		s.rcpt = func(to string) *gosmtp.SMTPError {
			if to != "bob@example.org" || puts > 1 {
				return nil
			}
			puts++
			return busy
		}
	})
	h.send(tasks.Options{IdempotencyKey: "one"}, message(1, to("ann@example.org", "bob@example.org")))
	h.ended(map[tasks.Action]int{tasks.ActionSent: 2, tasks.ActionRetry: 1})
	mails := h.server.taken()
	if len(mails) != 2 || mails[0].data != mails[1].data || !slices.Equal(mails[1].to, []string{"bob@example.org"}) {
		t.Errorf("got %+v", mails)
	}
	want := []string{"Letter 1 ann@example.org bob@example.org", "Letter 1 bob@example.org", "Letter 1 bob@example.org"}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// An at_most_once message that a hook has stopped was not sent: its dead letter does not say that it may have been.
func TestHooks_atMostOnce(t *testing.T) {
	h := newHouse(t, map[string]string{"EMAIL_MAX_RETRY": "0"}, hook{
		"Letter 1": func(context.Context, tasks.Outgoing) (*mailer.EmailMessage, error) {
			return nil, &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Text: "perhaps"}
		},
		"Letter 2": func(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
			return m.Message.Redirect("carl@example.net"), nil
		},
	})
	h.send(tasks.Options{AtMostOnce: true}, message(1))
	h.send(tasks.Options{AtMostOnce: true}, message(2, to("bob@example.org")))
	all := h.ended(map[tasks.Action]int{tasks.ActionSent: 1, tasks.ActionDead: 1})
	if why := dead(all)["ann@example.org"]; strings.Contains(why, "may have been delivered") {
		t.Errorf("its reason is %q", why)
	}
}
