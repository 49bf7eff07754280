package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// variousLetters is a house with dead letters of several reasons, queues, mailers, tags and times.
func variousLetters(t *testing.T) *DeadLetters {
	t.Helper()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if strings.HasPrefix(m.To[0], "full") {
			return mailer.Result{Err: sendError(mailer.Permanent, 552, "mailbox of "+m.To[0]+" is FULL")}
		}
		return mailer.Result{Err: sendError(mailer.Permanent, 550, "<"+m.To[0]+"> unknown")}
	}
	queue := NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}})
	for i, o := range []Options{
		{Tags: []string{"invoice"}}, {Tags: []string{"invoice", "paid"}, Queue: "bulk"}, {Using: "marketing", Mailing: "news"},
		{Using: "marketing", Queue: "bulk"}, {},
	} {
		m := message(fmt.Sprintf("user%d@example.com", i))
		m.Subject = fmt.Sprintf("Letter %d", i)
		if i >= 3 {
			m.To = []string{fmt.Sprintf("full%d@Example.org", i)}
		}
		if _, err := queue.With(o).Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	cfg := h.config()
	cfg.Mailers, cfg.Queues = map[string]int{"marketing": 1}, map[string]int{"default": 2, "bulk": 1}
	stop := h.start(cfg)
	d := NewDeadLetters(h.Client(t))
	h.eventually("five dead letters", func() bool {
		s, err := d.Survey(t.Context(), Filter{}, 0)
		return err == nil && s.Total == 5
	})
	stop()
	return d
}

func TestDeadLetters_filter(t *testing.T) {
	t.Parallel()
	d := variousLetters(t)
	const unknown, full = "550 … unknown (end of data)", "552 mailbox of … is FULL (end of data)"
	for _, tt := range []struct {
		name string
		f    Filter
		want string // the numbers of the letters
	}{
		{"all", Filter{}, "01234"},
		{"a queue, of all mailers", Filter{Queue: "bulk"}, "13"},
		{"a queue of asynq's", Filter{Queue: "marketing.bulk"}, "3"},
		{"no such queue", Filter{Queue: "nosuch"}, ""},
		{"a mailer", Filter{Mailer: "marketing"}, "23"},
		{"the mailer without a name", Filter{Mailer: "default"}, "014"},
		{"a reason, in another case", Filter{Reason: "mailbox OF"}, "34"},
		{"a group", Filter{Group: unknown}, "012"},
		{"a group, masked", Filter{Group: unknown, Masked: true}, "012"},
		{"a reason with an address", Filter{Reason: "user1@example.com"}, "1"},
		{"a reason with an address, masked", Filter{Reason: "user1@example.com", Masked: true}, ""},
		{"an address, in another case", Filter{To: "USER2@example.com"}, "2"},
		{"half an address", Filter{To: "ser2@example.com"}, ""},
		{"a part of an address", Filter{To: "full"}, "34"},
		{"a domain", Filter{To: "@example.ORG"}, "34"},
		{"a subject", Filter{Subject: "letter 4"}, "4"},
		{"a tag", Filter{Tag: "invoice"}, "01"},
		{"half a tag", Filter{Tag: "invo"}, ""},
		{"a mailing", Filter{Mailing: "news"}, "2"},
		{"since an hour", Filter{Since: time.Now().Add(-time.Hour)}, "01234"},
		{"from tomorrow on", Filter{Since: time.Now().Add(24 * time.Hour)}, ""},
		{"until an hour ago", Filter{Until: time.Now().Add(-time.Hour)}, ""},
		{"several", Filter{Queue: "bulk", Tag: "paid", Reason: "UNKNOWN"}, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for l, err := range d.Each(t.Context(), tt.f) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, strings.TrimPrefix(l.Subject(), "Letter "))
			}
			if slices.Sort(got); strings.Join(got, "") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
			s, err := d.Survey(t.Context(), tt.f, 100)
			if err != nil || s.Total != len(tt.want) || len(s.Newest) != len(tt.want) {
				t.Errorf("survey: %+v, %v", s, err)
			}
		})
	}
	s, err := d.Survey(t.Context(), Filter{}, 2)
	if err != nil || len(s.Groups) != 2 || s.Groups[0].Group != unknown || s.Groups[0].Count != 3 || s.Groups[1].Group != full ||
		s.Groups[1].Count != 2 || s.Groups[1].Queues["marketing.bulk"] != 1 || len(s.Newest) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A message that is tried again can be seen, with all its tries, tried at once and taken back.
func TestRetries(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Temporary, 451, fmt.Sprintf("%s, later", m.To[0]))}
	}
	h.send(2, nil)
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	r := NewRetries(h.Client(t))
	waiting := func(tries int) (list []*Retry) {
		h.eventually(fmt.Sprintf("%d tries", tries), func() bool {
			list = nil
			for l, err := range r.Each(t.Context(), Filter{Reason: "LATER"}) {
				if err != nil {
					t.Fatal(err)
				}
				if l.Tries == tries {
					list = append(list, l)
				}
			}
			return len(list) > 0
		})
		return list
	}
	h.eventually("both failed", func() bool { return h.info().Retry == 2 })
	first := waiting(1)
	if len(first) != 2 || first[0].Message == nil || time.Until(first[0].Next) < 50*time.Minute {
		t.Fatalf("%+v", first)
	}
	if err := r.Now(t.Context(), "default", first[0].ID); err != nil {
		t.Fatal(err)
	}
	again := waiting(2)
	l, err := r.Get(t.Context(), "default", again[0].ID)
	if err != nil || len(l.History) != 2 || l.History[0].Number != 1 || l.History[1].Number != 2 ||
		l.History[0].Reason != "451 "+l.Message.To[0]+", later (end of data)" || time.Since(l.History[0].At) > time.Minute {
		t.Fatalf("%+v, %v", l, err)
	}
	if s, last, err := r.Survey(t.Context(), Filter{}, 10); err != nil || s.Total != 2 || len(s.Groups) != 1 || len(last) != 2 || last[0].Next.Before(time.Now()) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := r.Cancel(t.Context(), "default", l.ID); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"Cancel": r.Cancel(t.Context(), "default", l.ID), "Now": r.Now(t.Context(), "default", l.ID),
		"Get": func() error { _, err := r.Get(t.Context(), "default", l.ID); return err }(),
	} {
		if !errors.Is(err, ErrNoRetry) {
			t.Errorf("%s of a message that is gone: %v", what, err)
		}
	}
	// The other one becomes a dead letter, and its history is still there.
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Permanent, 550, "never")}
	}
	for _, other := range first {
		if other.ID == l.ID {
			continue
		}
		if err := r.Now(t.Context(), "default", other.ID); err != nil {
			t.Fatal(err)
		}
		h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
		dead, err := NewDeadLetters(h.Client(t)).Get("default", other.ID)
		if err != nil || len(dead.History) != 2 || !strings.Contains(dead.History[0].Reason, ", later") || dead.History[1] != (Try{Number: 2, At: dead.At, Reason: "550 never (end of data)"}) {
			t.Errorf("%+v, %v", dead, err)
		}
	}
}

// What a mass task leaves behind for another try, and recipients that were put off, are among the retries, with the reason.
func TestRetries_remainders(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch m.MessageID {
		case "<1@t>":
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "greylisted")}
		case "<2@t>":
			return mailer.Result{Refused: []*mailer.SendError{{Class: mailer.Temporary, Step: mailer.StepRcpt, Code: 452, Text: "full", Recipient: m.To[0]}}}
		}
		return mailer.Result{}
	}
	h.sendAll(4, func(_ int, m *mailer.EmailMessage) { m.To = append(m.To, "b@example.com") })
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("two that are tried again, and no more", func() bool { return h.info().Retry == 2 && h.size("default:mass") == 0 })
	r := NewRetries(h.Client(t))
	reasons := map[string]string{}
	for l, err := range r.Each(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		whole, err := r.Get(t.Context(), l.Queue, l.ID)
		if err != nil || len(whole.History) != 1 || l.Tries != 1 || time.Until(l.Next) < 50*time.Minute {
			t.Fatalf("%+v, %v", whole, err)
		}
		reasons[l.Message.MessageID] = whole.History[0].Reason
	}
	if reasons["<1@t>"] != "451 greylisted (end of data)" || reasons["<2@t>"] != "452 full (RCPT <u2@example.com>)" {
		t.Errorf("%v", reasons)
	}
	// They are tried again as before.
	h.relay.answer = nil
	for l, err := range r.Each(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Now(t.Context(), l.Queue, l.ID); err != nil {
			t.Error(err)
		}
	}
	h.allEmpty()
}
