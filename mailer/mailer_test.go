package mailer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// recorder is a backend that keeps what it is given, and says what it is told to.
type recorder struct {
	batches [][]*mailer.EmailMessage
	opened  int
	closed  int
	sent    int
	err     error
}

func (r *recorder) Open(context.Context) (bool, error) {
	r.opened++
	return r.err == nil, r.err
}

func (r *recorder) Close() error {
	r.closed++
	return r.err
}

func (r *recorder) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	r.batches = append(r.batches, messages)
	if r.err != nil {
		return r.sent, r.err
	}
	return len(messages), nil
}

// the returns the only message of the only batch.
func (r *recorder) the(t *testing.T) *mailer.EmailMessage {
	t.Helper()
	if len(r.batches) != 1 || len(r.batches[0]) != 1 {
		t.Fatalf("got %d batches, want one of one message", len(r.batches))
	}
	return r.batches[0][0]
}

// newMailer returns a Mailer whose calls all use r. asked collects what they ask for.
func newMailer(t *testing.T, r *recorder, change func(*mailer.Config)) (m *mailer.Mailer, asked *[]mailer.Connection) {
	t.Helper()
	asked = new([]mailer.Connection)
	cfg := mailer.Config{Connect: func(c mailer.Connection) (mailer.Backend, error) {
		*asked = append(*asked, c)
		return r, nil
	}}
	if change != nil {
		change(&cfg)
	}
	m, err := mailer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m, asked
}

func TestNew_needsConnect(t *testing.T) {
	if _, err := mailer.New(mailer.Config{}); err == nil {
		t.Error("got no error")
	}
}

func TestMailer_SendMail(t *testing.T) {
	r := &recorder{}
	m, asked := newMailer(t, r, func(c *mailer.Config) {
		c.Defaults = mailer.Defaults{FromEmail: "app@example.com", Hostname: "b\u00fccher.example"}
	})
	with := m.With(mailer.Options{Using: "alerts"})
	sent, err := with.SendMail(t.Context(), "Hi", "text", "", []string{"a@example.com", "b@example.com"}, &mailer.SendOptions{
		HTMLMessage: "<p>text</p>", FailSilently: true, Username: "u", Password: "p",
	})
	if sent != 1 || err != nil {
		t.Fatalf("got %d, %v", sent, err)
	}
	got := r.the(t)
	if got.Subject != "Hi" || got.Body != "text" || got.FromEmail != "app@example.com" || len(got.To) != 2 || !got.FailSilently {
		t.Errorf("got %+v", got)
	}
	if want := []mailer.Alternative{{Content: "<p>text</p>", Mimetype: "text/html"}}; !slices.Equal(got.Alternatives, want) {
		t.Errorf("got %+v, want %+v", got.Alternatives, want)
	}
	if got.Date.IsZero() || got.MessageID == "" || got.Charset != "utf-8" {
		t.Errorf("not complete: %+v", got)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if want := []mailer.Connection{{Using: "alerts", Username: "u", Password: "p"}}; !slices.Equal(*asked, want) {
		t.Errorf("asked for %+v, want %+v", *asked, want)
	}
}

func TestMailer_SendMail_plain(t *testing.T) {
	r := &recorder{}
	m, _ := newMailer(t, r, nil)
	if sent, err := m.SendMail(t.Context(), "Hi", "text", "me@example.com", []string{"a@example.com"}, nil); sent != 1 || err != nil {
		t.Fatalf("got %d, %v", sent, err)
	}
	if got := r.the(t); got.FromEmail != "me@example.com" || len(got.Alternatives) != 0 || got.FailSilently {
		t.Errorf("got %+v", got)
	}
}

func TestMailer_SendMassMail(t *testing.T) {
	r := &recorder{}
	m, asked := newMailer(t, r, nil)
	sent, err := m.SendMassMail(t.Context(), []mailer.Mail{
		{Subject: "1", Message: "one", From: "me@example.com", To: []string{"a@example.com"}},
		{Subject: "2", Message: "two", To: []string{"b@example.com"}},
	}, nil)
	if sent != 2 || err != nil {
		t.Fatalf("got %d, %v", sent, err)
	}
	if len(r.batches) != 1 || len(*asked) != 1 {
		t.Fatalf("got %d batches over %d connections, want one", len(r.batches), len(*asked))
	}
	one, two := r.batches[0][0], r.batches[0][1]
	if one.Subject != "1" || two.Subject != "2" || two.FromEmail != "webmaster@localhost" || one.MessageID == two.MessageID {
		t.Errorf("got %+v and %+v", one, two)
	}
}

func TestMailer_staff(t *testing.T) {
	staff := func(c *mailer.Config) {
		c.Admins, c.Managers = []string{"Ann <ann@example.com>"}, []string{"bob@example.com", "cy@example.com"}
		c.SubjectPrefix, c.ServerEmail = "[Shop] ", "shop@example.com"
	}
	tests := []struct {
		name   string
		send   func(m *mailer.Mailer) (int, error)
		change func(*mailer.Config)
		from   string
		to     []string
	}{
		{"admins", func(m *mailer.Mailer) (int, error) { return m.MailAdmins(t.Context(), "Hi", "text", nil) }, staff, "shop@example.com", []string{"Ann <ann@example.com>"}},
		{"managers", func(m *mailer.Mailer) (int, error) { return m.MailManagers(t.Context(), "Hi", "text", nil) }, staff, "shop@example.com", []string{"bob@example.com", "cy@example.com"}},
		{"default sender", func(m *mailer.Mailer) (int, error) { return m.MailAdmins(t.Context(), "Hi", "text", nil) }, func(c *mailer.Config) {
			c.Admins, c.SubjectPrefix = []string{"a@example.com"}, "[Shop] "
		}, "root@localhost", []string{"a@example.com"}},
		{"no admins", func(m *mailer.Mailer) (int, error) { return m.MailAdmins(t.Context(), "Hi", "text", nil) }, nil, "", nil},
		{"no managers", func(m *mailer.Mailer) (int, error) { return m.MailManagers(t.Context(), "Hi", "text", nil) }, nil, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{}
			m, asked := newMailer(t, r, tt.change)
			sent, err := tt.send(m)
			if err != nil {
				t.Fatal(err)
			}
			if tt.to == nil {
				if sent != 0 || len(r.batches) != 0 || len(*asked) != 0 {
					t.Errorf("sent %d to nobody", sent)
				}
				return
			}
			if got := r.the(t); got.FromEmail != tt.from || !slices.Equal(got.To, tt.to) || got.Subject != "[Shop] Hi" || got.Headers["Auto-Submitted"] != "auto-generated" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestMailer_Send_nothing(t *testing.T) {
	r := &recorder{}
	m, asked := newMailer(t, r, nil)
	if sent, err := m.Send(t.Context()); sent != 0 || err != nil {
		t.Errorf("got %d, %v", sent, err)
	}
	if sent, err := m.SendMassMail(t.Context(), nil, nil); sent != 0 || err != nil {
		t.Errorf("got %d, %v", sent, err)
	}
	if len(*asked) != 0 || len(r.batches) != 0 || r.opened != 0 {
		t.Errorf("asked for %d connections, sent %d batches", len(*asked), len(r.batches))
	}
}

func TestMailer_Send_leavesMessageAlone(t *testing.T) {
	r := &recorder{}
	m, _ := newMailer(t, r, nil)
	e := &mailer.EmailMessage{Subject: "Hi", To: []string{"a@example.com"}}
	if _, err := m.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if e.MessageID != "" || !e.Date.IsZero() || e.FromEmail != "" {
		t.Errorf("the caller's message was changed: %+v", e)
	}
}

func TestMailer_ownBackend(t *testing.T) {
	own, configured := &recorder{}, &recorder{}
	m, asked := newMailer(t, configured, nil)
	if sent, err := m.SendMail(t.Context(), "Hi", "", "", []string{"a@example.com"}, &mailer.SendOptions{Backend: own}); sent != 1 || err != nil {
		t.Fatalf("got %d, %v", sent, err)
	}
	own.the(t)
	if len(*asked) != 0 || own.opened != 0 || own.closed != 0 {
		t.Errorf("asked for %d connections, opened %d, closed %d", len(*asked), own.opened, own.closed)
	}
	for name, send := range map[string]func() (int, error){
		"mailer": func() (int, error) {
			alerts := m.With(mailer.Options{Using: "alerts"})
			return alerts.SendMail(t.Context(), "Hi", "", "", []string{"a@example.com"}, &mailer.SendOptions{Backend: own})
		},
		"login": func() (int, error) {
			login := &mailer.SendOptions{Backend: own, Username: "u", Password: "p"}
			return m.SendMail(t.Context(), "Hi", "", "", []string{"a@example.com"}, login)
		},
	} {
		if _, err := send(); err == nil || len(own.batches) != 1 {
			t.Errorf("with a %s: got %v, %d batches", name, err, len(own.batches))
		}
	}
}

func TestMailer_cannotConnect(t *testing.T) {
	wrong := errors.New("no such mailer")
	m, err := mailer.New(mailer.Config{Connect: func(mailer.Connection) (mailer.Backend, error) { return nil, wrong }})
	if err != nil {
		t.Fatal(err)
	}
	for _, silently := range []bool{false, true} { // a wrong configuration is never silent
		opts := &mailer.SendOptions{FailSilently: silently}
		if sent, err := m.SendMail(t.Context(), "Hi", "", "", []string{"a@example.com"}, opts); sent != 0 || !errors.Is(err, wrong) {
			t.Errorf("got %d, %v", sent, err)
		}
	}
}

func TestMailer_failSilently(t *testing.T) {
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepMail, Code: 550}
	bad := &mailer.BadHeaderError{Field: "subject", Reason: "has a LF"}
	tests := []struct {
		name     string
		err      error
		silently bool
		want     error // in the error, nil for no error
	}{
		{"loud", mailer.SendErrors{refused}, false, refused},
		{"silent", mailer.SendErrors{refused}, true, nil},
		{"silent, no connection", refused, true, nil},
		{"bad input is never silent", mailer.SendErrors{bad}, true, bad},
		{"bad input of the whole batch", bad, true, bad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := newMailer(t, &recorder{err: tt.err}, nil)
			sent, err := m.SendMail(t.Context(), "Hi", "", "", []string{"a@example.com"}, &mailer.SendOptions{FailSilently: tt.silently})
			if sent != 0 || !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("got %d, %v, want %v", sent, err, tt.want)
			}
		})
	}
}

func TestSilent(t *testing.T) {
	refused := errors.New("refused")
	r := &recorder{err: refused}
	s := mailer.Silent(r)
	if opened, err := s.Open(t.Context()); opened || err != nil {
		t.Errorf("Open: got %v, %v", opened, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: got %v", err)
	}
	if r.opened != 1 || r.closed != 1 {
		t.Errorf("opened %d, closed %d", r.opened, r.closed)
	}
	bad := &mailer.InvalidMessageError{Field: "body", Reason: "is not valid UTF-8"}
	r.sent, r.err = 1, mailer.SendErrors{nil, refused, bad}
	sent, err := s.SendMessages(t.Context(), make([]*mailer.EmailMessage, 3))
	if sent != 1 || mailer.ErrorAt(err, 0) != nil || mailer.ErrorAt(err, 1) != nil || !errors.Is(mailer.ErrorAt(err, 2), bad) {
		t.Errorf("got %d, %v", sent, err)
	}
}

// queueLike is a recorder that is told options, and knows its messages by their numbers.
type queueLike struct {
	recorder
	options []mailer.Options
	refuse  error // instead of taking the second message
}

func (q *queueLike) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, q, messages)
}

func (q *queueLike) SendBatch(_ context.Context, b mailer.Batch) {
	q.options, q.batches = append(q.options, b.Options), append(q.batches, b.Messages)
	for i := range b.Messages {
		r := mailer.Result{TaskID: fmt.Sprint("task-", i)}
		if i == 1 && q.refuse != nil {
			r = mailer.Result{Err: q.refuse}
		}
		b.Report([]mailer.Report{{Index: i, Result: r}})
	}
}

// Options are with a message however it is handed over.
func TestMailer_With(t *testing.T) {
	t.Parallel()
	q := new(queueLike)
	var asked []mailer.Connection
	m, err := mailer.New(mailer.Config{
		Connect: func(c mailer.Connection) (mailer.Backend, error) {
			asked = append(asked, c)
			return q, nil
		},
		Admins: []string{"ann@example.com"}, Managers: []string{"bob@example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	to, ctx := []string{"cy@example.com"}, t.Context()
	base := m.With(mailer.Options{Using: "marketing", Tags: []string{"shop"}})
	later := base.With(mailer.Options{ProcessIn: time.Hour, Queue: "bulk"})
	silently := &mailer.SendOptions{FailSilently: true, HTMLMessage: "<p>Hi</p>"}
	attached := &mailer.EmailMessage{Subject: "Hi", To: to}
	attached.Attach("a.txt", []byte("a"), "")
	for name, send := range map[string]func() (int, error){
		"SendMail":     func() (int, error) { return later.SendMail(ctx, "Hi", "", "", to, silently) },
		"SendMassMail": func() (int, error) { return later.SendMassMail(ctx, []mailer.Mail{{Subject: "Hi", To: to}}, nil) },
		"MailAdmins":   func() (int, error) { return later.MailAdmins(ctx, "Hi", "", nil) },
		"MailManagers": func() (int, error) { return later.MailManagers(ctx, "Hi", "", nil) },
		"Send":         func() (int, error) { return later.Send(ctx, attached) },
		"Enqueue": func() (int, error) {
			id, err := later.Enqueue(ctx, attached)
			if id != "task-0" {
				t.Errorf("Enqueue returns %q", id)
			}
			return 1, err
		},
	} {
		q.options, q.batches, asked = nil, nil, nil
		before := time.Now()
		if n, err := send(); n != 1 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
			continue
		}
		want := mailer.Options{Using: "marketing", Tags: []string{"shop"}, ProcessIn: time.Hour, Queue: "bulk"}
		if !reflect.DeepEqual(q.options, []mailer.Options{want}) || !slices.Equal(asked, []mailer.Connection{{Using: "marketing"}}) {
			t.Errorf("%s: handed over with %+v to %+v", name, q.options, asked)
		}
		if wait := q.batches[0][0].Date.Sub(before); wait < time.Hour-time.Second || wait > time.Hour+time.Minute {
			t.Errorf("%s: dated %v ahead, want an hour", name, wait)
		}
	}
	q.options, asked = nil, nil
	own, critical := &mailer.SendOptions{Backend: q}, mailer.Options{Queue: "critical"}
	if _, err := m.With(critical).SendMail(ctx, "Hi", "", "", to, own); err != nil || len(asked) > 0 || !reflect.DeepEqual(q.options, []mailer.Options{critical}) {
		t.Errorf("a backend of one's own got %+v, %v, and %d others were asked for", q.options, err, len(asked))
	}
	q.options = nil
	if _, err := m.Send(ctx, attached); err != nil || !q.options[0].IsZero() {
		t.Errorf("With has changed the mailer: %+v, %v", q.options, err)
	}
}

// What production would refuse is refused where mail is delivered at once.
func TestMailer_With_refuses(t *testing.T) {
	t.Parallel()
	r := new(recorder)
	m, asked := newMailer(t, r, nil)
	message := &mailer.EmailMessage{To: []string{"a@example.com"}}
	bad := m.With(mailer.Options{Queue: "with blank"})
	var name *mailer.NameError
	if n, err := bad.Send(t.Context(), message); n != 0 || !errors.As(err, &name) {
		t.Errorf("Send: %d, %v", n, err)
	}
	if n, err := bad.SendMail(t.Context(), "", "", "", message.To, &mailer.SendOptions{FailSilently: true}); n != 0 || !errors.As(err, &name) {
		t.Errorf("SendMail, silently: %d, %v", n, err)
	}
	if id, err := bad.Enqueue(t.Context(), message); id != "" || !errors.As(err, &name) {
		t.Errorf("Enqueue: %q, %v", id, err)
	}
	if len(*asked) != 0 || len(r.batches) != 0 {
		t.Errorf("asked for %d connections, sent %d batches", len(*asked), len(r.batches))
	}
	// The rest is ignored there, and there is no ID.
	good := m.With(mailer.Options{Queue: "bulk", IdempotencyKey: "k", ProcessIn: time.Hour})
	if id, err := good.Enqueue(t.Context(), message); id != "" || err != nil || len(r.batches) != 1 {
		t.Errorf("Enqueue where mail is delivered at once: %q, %v, %d batches", id, err, len(r.batches))
	}
}

func TestMailer_SendResults(t *testing.T) {
	t.Parallel()
	q := &queueLike{refuse: errors.New("no")}
	m, err := mailer.New(mailer.Config{Connect: func(mailer.Connection) (mailer.Backend, error) { return q, nil }})
	if err != nil {
		t.Fatal(err)
	}
	a, b := &mailer.EmailMessage{To: []string{"a@example.com"}}, &mailer.EmailMessage{To: []string{"b@example.com"}}
	results, err := m.SendResults(t.Context(), a, b, a)
	if err != nil || len(results) != 3 || results[0].TaskID != "task-0" || !errors.Is(results[1].Err, q.refuse) || results[2].TaskID != "task-2" {
		t.Errorf("%+v, %v", results, err)
	}
	if results, err := m.SendResults(t.Context()); results != nil || err != nil || len(q.batches) != 1 {
		t.Errorf("of no message: %+v, %v", results, err)
	}
}
