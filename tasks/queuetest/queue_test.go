package queuetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

func TestQueue_conformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Helper()
		t.Parallel()
		q := New(Config{})
		return mailertest.Harness{
			Backend: q,
			Received: func() []mailertest.Mail {
				var mails []mailertest.Mail
				for _, task := range q.Tasks() {
					var data bytes.Buffer
					m := task.Message
					if len(task.Recipients) > 0 {
						m = m.WithRecipients(task.Recipients)
					}
					_, err := m.WriteTo(&data)
					envelope, err2 := m.Envelope()
					if err := errors.Join(err, err2); err != nil {
						t.Fatal(err)
					}
					mails = append(mails, mailertest.Mail{Envelope: envelope, Data: data.Bytes()})
				}
				return mails
			},
			Down: func() { q.Fail(errors.New("connection refused")) },
		}
	})
}

// relay is a backend that says what it is told to.
type relay struct {
	answer func(m *mailer.EmailMessage) mailer.Result // nil: all are accepted
	got    []*mailer.EmailMessage
	down   error
}

func (r *relay) Open(context.Context) (bool, error) { return r.down == nil, r.down }
func (r *relay) Close() error                       { return nil }
func (r *relay) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, r, messages)
}

func (r *relay) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.Deliver(ctx, r, b, mailer.Defaults{}, func(m *mailer.EmailMessage, _ mailer.Envelope) mailer.Result {
		if r.answer != nil {
			if result := r.answer(m); result.Err != nil || result.Reply != "" {
				return result
			}
		}
		r.got = append(r.got, m)
		return mailer.Result{Reply: "250 ok"}
	})
}

func (r *relay) subjects() string {
	var all []string
	for _, m := range r.got {
		all = append(all, m.Subject)
	}
	return strings.Join(all, " ")
}

func message(subject string) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: subject, FromEmail: "shop@example.com", To: []string{"ann@example.org"}}
}

// on is a queue that delivers to a relay.
func on(r *relay) *Queue {
	return New(Config{Connect: func(string) (mailer.Backend, error) { return r, nil }})
}

func enqueue(t *testing.T, q *Queue, m *mailer.EmailMessage) (id string) {
	t.Helper()
	id, err := q.Enqueue(t.Context(), m)
	if err != nil || id == "" {
		t.Fatalf("Enqueue = %q, %v", id, err)
	}
	return id
}

// run runs what is due, and returns what was done with each message.
func run(t *testing.T, q *Queue, now time.Time) string {
	t.Helper()
	outcomes, err := q.RunDue(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range outcomes {
		all = append(all, o.Message.Subject+": "+string(o.Action))
	}
	return strings.Join(all, ", ")
}

// What is due is sent in its order, and the rest waits until its time has come.
func TestQueue_RunDue(t *testing.T) {
	t.Parallel()
	r := new(relay)
	q := on(r)
	now := time.Now()
	enqueue(t, q.With(mailer.Options{ProcessIn: time.Hour}), message("later"))
	enqueue(t, q.With(mailer.Options{ProcessAt: now.Add(24 * time.Hour)}), message("tomorrow"))
	enqueue(t, q, message("now"))
	for _, tt := range []struct {
		in         time.Duration
		done, sent string
		left       int
	}{
		{0, "now: sent", "now", 2},
		{30 * time.Minute, "", "now", 2},
		{25 * time.Hour, "later: sent, tomorrow: sent", "now later tomorrow", 0},
	} {
		if got := run(t, q, time.Now().Add(tt.in)); got != tt.done || r.subjects() != tt.sent || len(q.Tasks()) != tt.left {
			t.Errorf("in %v: %s; sent %q, %d left", tt.in, got, r.subjects(), len(q.Tasks()))
		}
	}
	if got := r.got[1].Date.Sub(now); got < 59*time.Minute || got > 61*time.Minute {
		t.Errorf("dated %v ahead, want the time of sending", got)
	}
}

// In a bubble the program's time passes too.
func TestQueue_RunDue_bubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := new(relay)
		q := on(r)
		enqueue(t, q.With(mailer.Options{ProcessIn: time.Hour}), message("later"))
		if got := run(t, q, time.Now()); got != "" {
			t.Error(got)
		}
		time.Sleep(time.Hour)
		if got := run(t, q, time.Now()); got != "later: sent" {
			t.Error(got)
		}
	})
}

func TestQueue_held(t *testing.T) {
	t.Parallel()
	r := &relay{down: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}}
	q := on(r)
	enqueue(t, q, message("a"))
	silent := message("b")
	silent.FailSilently = true
	enqueue(t, q, silent)
	now := time.Now()
	if got := run(t, q, now); got != "a: held, b: failed silently" {
		t.Error(got)
	}
	if tasks := q.Tasks(); len(tasks) != 1 || tasks[0].State != Waiting || tasks[0].Tries != 0 || !strings.Contains(tasks[0].Reason, "connection refused") {
		t.Errorf("%+v", tasks)
	}
	if got := run(t, q, now.Add(121*time.Hour)); got != "a: dead letter" {
		t.Error(got)
	}
	if tasks := q.Tasks(); len(tasks) != 1 || tasks[0].State != Dead || !strings.Contains(tasks[0].Reason, "EMAIL_MAX_AGE") {
		t.Errorf("%+v", tasks)
	}
}

// A relay that says when to come back gets no mail before that, neither what it has put off nor what was handed over since.
func TestQueue_retryAfter(t *testing.T) {
	t.Parallel()
	wait := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Code: 429, RetryAfter: 10 * time.Minute}
	r := &relay{down: wait}
	q := on(r)
	enqueue(t, q, message("a"))
	now := time.Now()
	if got := run(t, q, now); got != "a: held" {
		t.Error(got)
	}
	r.down = nil
	enqueue(t, q, message("b"))
	if got := run(t, q, now.Add(9*time.Minute)); got != "" {
		t.Error("too early: " + got)
	}
	if got := run(t, q, now.Add(10*time.Minute)); got != "a: sent, b: sent" {
		t.Error(got)
	}
	r.answer = func(*mailer.EmailMessage) mailer.Result {
		failure := *wait
		failure.Class, failure.Step = mailer.Temporary, mailer.StepEnd
		return mailer.Result{Err: &failure}
	}
	enqueue(t, q, message("c"))
	if got := run(t, q, now.Add(time.Hour)); got != "c: retry" {
		t.Error(got)
	}
	if due := q.Tasks()[0].Due; due.Before(now.Add(70 * time.Minute)) {
		t.Errorf("tried again %v later, want 10 minutes", due.Sub(now.Add(time.Hour)))
	}
}

// What the queue refuses it refuses with the errors of the real one.
func TestQueue_refuses(t *testing.T) {
	t.Parallel()
	q := New(Config{Mailers: []string{"marketing"}})
	if _, err := q.With(mailer.Options{Queue: "a b"}).Enqueue(t.Context(), message("a")); !isA[*mailer.NameError](err) || mailer.ClassOf(err) != mailer.Permanent {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := q.With(mailer.Options{Using: "nobody"}).Enqueue(t.Context(), message("a")); !isA[*mailer.UnknownMailerError](err) {
		t.Errorf("an unknown mailer: %v", err)
	}
	if _, err := q.Connect(mailer.Connection{Using: "nobody"}); !isA[*mailer.UnknownMailerError](err) {
		t.Errorf("Connect to an unknown mailer: %v", err)
	}
	if _, err := q.Connect(mailer.Connection{Username: "u"}); err == nil {
		t.Error("a login was taken")
	}
	if _, err := q.Enqueue(t.Context(), message("a\nb")); !mailer.IsBadInput(err) {
		t.Errorf("a bad message: %v", err)
	}
	if id, err := q.Enqueue(t.Context(), &mailer.EmailMessage{}); id != "" || err != nil {
		t.Errorf("a message for nobody: %q, %v", id, err)
	}
	q.Fail(errors.New("connection refused"))
	if _, err := q.Enqueue(t.Context(), message("a")); mailer.ClassOf(err) != mailer.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("while Redis is away: %v", err)
	}
	if q.Fail(nil); len(q.Tasks()) != 0 {
		t.Errorf("%d tasks", len(q.Tasks()))
	}
	enqueue(t, q, message("a"))
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// Each mailer has its backend, and one that cannot be had leaves the mail of the others alone.
func TestQueue_mailers(t *testing.T) {
	t.Parallel()
	shop, alerts, wrong := new(relay), new(relay), errors.New("no such mailer")
	q := New(Config{Connect: func(name string) (mailer.Backend, error) {
		switch name {
		case "":
			return shop, nil
		case "alerts":
			return alerts, nil
		}
		return nil, wrong
	}})
	m, err := mailer.New(mailer.Config{Connect: q.Connect})
	if err != nil {
		t.Fatal(err)
	}
	for _, using := range []string{"alerts", "default", "", "nobody"} {
		if _, err := m.With(mailer.Options{Using: using, Tags: []string{"a"}}).Send(t.Context(), message(using)); err != nil {
			t.Fatal(err)
		}
	}
	outcomes, err := q.RunDue(t.Context(), time.Now())
	if len(outcomes) != 3 || !errors.Is(err, wrong) || alerts.subjects() != "alerts" || shop.subjects() != "default " {
		t.Errorf("%+v, %v: %q and %q", outcomes, err, alerts.subjects(), shop.subjects())
	}
	if left := q.Tasks(); len(left) != 1 || left[0].State != Waiting || left[0].Options.Using != "nobody" || !slices.Equal(left[0].Options.Tags, []string{"a"}) {
		t.Errorf("%+v", left)
	}
}

// A backend may use the queue, and what it sees is on the wire.
func TestQueue_onWire(t *testing.T) {
	t.Parallel()
	r := new(relay)
	q := on(r)
	id := enqueue(t, q, message("a"))
	r.answer = func(*mailer.EmailMessage) mailer.Result {
		if err := q.Cancel(t.Context(), id); !errors.Is(err, mailer.ErrTooLate) {
			t.Errorf("Cancel: %v", err)
		}
		if state := q.Tasks()[0].State; state != OnWire {
			t.Errorf("it is %s", state)
		}
		if got := run(t, q, time.Now().Add(time.Minute)); got != "" {
			t.Errorf("run again: %s", got)
		}
		return mailer.Result{}
	}
	if got := run(t, q, time.Now()); got != "a: sent" {
		t.Error(got)
	}
}

// Changing what one gets changes nothing in the queue.
func TestQueue_Tasks_are_copies(t *testing.T) {
	t.Parallel()
	q := New(Config{})
	m := message("a")
	tags := []string{"x"}
	enqueue(t, q.With(mailer.Options{Tags: tags, Retention: time.Hour}), m)
	m.To[0], tags[0] = "bob@example.org", "y"
	for range 2 {
		got := q.Tasks()[0]
		if got.Message.To[0] != "ann@example.org" || got.Options.Tags[0] != "x" {
			t.Errorf("%+v", got)
		}
		got.Message.To[0], got.Options.Tags[0] = "bob@example.org", "y"
	}
	if got := run(t, q, time.Now()); got != "a: sent" || q.Tasks()[0].State != Sent || q.Tasks()[0].Tries != 1 {
		t.Errorf("%s, %+v", got, q.Tasks())
	}
	if run(t, q, time.Now().Add(time.Hour)); len(q.Tasks()) != 0 {
		t.Errorf("kept beyond its retention: %+v", q.Tasks())
	}
}
