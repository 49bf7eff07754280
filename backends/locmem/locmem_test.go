package locmem

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Parallel()
		outbox := new(Outbox)
		return mailertest.Harness{
			Backend: newBackend(t, outbox),
			Received: func() []mailertest.Mail {
				var mails []mailertest.Mail
				for _, m := range outbox.Messages() {
					mails = append(mails, mailertest.Mail{Envelope: m.Envelope, Data: m.Raw})
				}
				return mails
			},
		}
	})
}

func newBackend(t *testing.T, outbox *Outbox) *Backend {
	t.Helper()
	b, err := New(Config{Outbox: outbox})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func message(subject string) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: subject, FromEmail: "from@example.com", To: []string{"to@example.org"}, Bcc: []string{"bcc@example.org"}}
}

func send(t *testing.T, b *Backend, messages ...*mailer.EmailMessage) {
	t.Helper()
	if sent, err := b.SendMessages(t.Context(), messages); sent != len(messages) || err != nil {
		t.Errorf("sent %d of %d, %v", sent, len(messages), err)
	}
}

func TestBackend_SendMessages_mail(t *testing.T) {
	t.Parallel()
	outbox := new(Outbox)
	m := message("Grüße")
	send(t, newBackend(t, outbox), m)

	got := outbox.Messages()[0]
	if got.Message == m || got.Message.Subject != "Grüße" || got.Message.MessageID == "" || got.Message.Date.IsZero() {
		t.Errorf("the message is not a complete copy: %+v", got.Message)
	}
	if want := (mailer.Envelope{From: "from@example.com", To: []string{"to@example.org", "bcc@example.org"}}); !reflect.DeepEqual(got.Envelope, want) {
		t.Errorf("the envelope is %+v, want %+v", got.Envelope, want)
	}
	var raw bytes.Buffer
	if _, err := got.Message.WriteTo(&raw); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Raw, raw.Bytes()) || !bytes.Contains(got.Raw, []byte("\r\nSubject: =?utf-8?")) {
		t.Errorf("not the rendered message:\n%s", got.Raw)
	}
}

func TestOutbox_shared_by_backends(t *testing.T) {
	t.Parallel()
	outbox := new(Outbox)
	const backends, each = 8, 25
	var wg sync.WaitGroup
	for range backends {
		b := newBackend(t, outbox)
		wg.Go(func() {
			for range each {
				send(t, b, message("A"))
				outbox.Messages()
			}
		})
	}
	wg.Wait()
	if got := outbox.Len(); got != backends*each {
		t.Errorf("%d messages, want %d", got, backends*each)
	}
	outbox.Reset()
	if got := outbox.Messages(); len(got) != 0 || outbox.Len() != 0 {
		t.Errorf("after Reset there are %d messages", len(got))
	}
	send(t, newBackend(t, outbox), message("B"))
	if got := outbox.Messages(); len(got) != 1 || got[0].Message.Subject != "B" {
		t.Errorf("after Reset and one message there are %d", len(got))
	}
}

func TestNew_without_outbox(t *testing.T) {
	t.Parallel()
	a, b := newBackend(t, nil), newBackend(t, nil)
	send(t, a, message("A"))
	if a.Outbox().Len() != 1 || b.Outbox().Len() != 0 {
		t.Errorf("%d and %d messages, want 1 and 0: each backend has an Outbox of its own", a.Outbox().Len(), b.Outbox().Len())
	}
}

// What a test does with the messages that it gets stays with it.
func TestOutbox_Messages_are_copies(t *testing.T) {
	t.Parallel()
	outbox := new(Outbox)
	send(t, newBackend(t, outbox), message("A"))
	first := outbox.Messages()
	first[0].Message.To[0], first[0].Message.Subject = "x", "x"
	first[0].Envelope.To[0] = "x"
	first[0].Raw[0] = 'x'
	first[0] = Mail{}

	got := outbox.Messages()[0]
	if got.Message.To[0] != "to@example.org" || got.Message.Subject != "A" || got.Envelope.To[0] != "to@example.org" || got.Raw[0] == 'x' {
		t.Errorf("the Outbox was changed: %+v", got)
	}
}

// cloneMessage is checked for every exported field that a message has, also for one
// that is added later. What is not exported nobody but its package can change.
func TestCloneMessage(t *testing.T) {
	t.Parallel()
	m := new(mailer.EmailMessage)
	fill(reflect.ValueOf(m).Elem())
	c := cloneMessage(m)
	if !reflect.DeepEqual(c, m) {
		t.Errorf("got %+v\nwant %+v", c, m)
	}
	sharesNothing(t, "message", reflect.ValueOf(c).Elem(), reflect.ValueOf(m).Elem())
}

// fill puts something into all that v refers to.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x"), reflect.ValueOf("y"))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}

// sharesNothing reports what two equal values have in common.
func sharesNothing(t *testing.T, path string, a, b reflect.Value) {
	t.Helper()
	switch a.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		if !a.IsNil() && a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
	}
	switch a.Kind() {
	case reflect.Slice:
		for i := range a.Len() {
			sharesNothing(t, path+"[]", a.Index(i), b.Index(i))
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() {
				sharesNothing(t, path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		}
	}
}

func subjects(mails []Mail) string {
	var all []string
	for _, m := range mails {
		all = append(all, m.Message.Subject)
	}
	return strings.Join(all, " ")
}

func TestOutbox_To(t *testing.T) {
	t.Parallel()
	outbox := new(Outbox)
	b := newBackend(t, outbox)
	send(t, b, message("A"), &mailer.EmailMessage{Subject: "B", To: []string{"Ann <ann@b\u00fccher.example>"}, Cc: []string{"to@example.org"}})
	for _, tt := range []struct{ address, want string }{
		{"to@example.org", "A B"}, {"bcc@example.org", "A"}, {"Somebody <ANN@B\u00dcCHER.example>", "B"}, {"ann@xn--bcher-kva.example", "B"},
		{"nobody@example.org", ""}, {"from@example.com", ""}, {"nonsense", ""}, {"", ""},
	} {
		if got := subjects(outbox.To(tt.address)); got != tt.want {
			t.Errorf("To(%q): %q, want %q", tt.address, got, tt.want)
		}
	}
	if got := subjects(outbox.Find(func(m Mail) bool { return len(m.Message.Cc) > 0 })); got != "B" {
		t.Errorf("Find: %q", got)
	}
}

// A test sees how a message would have waited.
func TestOutbox_options(t *testing.T) {
	t.Parallel()
	outbox := new(Outbox)
	b := newBackend(t, outbox)
	m, err := mailer.New(mailer.Config{Connect: func(mailer.Connection) (mailer.Backend, error) { return b, nil }})
	if err != nil {
		t.Fatal(err)
	}
	o := mailer.Options{Using: "marketing", Queue: "bulk", ProcessIn: time.Hour, MaxRetry: new(3), Tags: []string{"a"}, IdempotencyKey: "order-17"}
	if _, err := m.With(o).Send(t.Context(), message("A")); err != nil {
		t.Fatal(err)
	}
	got := outbox.Messages()[0]
	if !reflect.DeepEqual(got.Options, o) || time.Until(got.Message.Date) < 50*time.Minute {
		t.Errorf("handed over with %+v, want %+v; dated %v", got.Options, o, got.Message.Date)
	}
	got.Options.Tags[0], *got.Options.MaxRetry = "x", 4
	if got := outbox.Messages()[0]; !reflect.DeepEqual(got.Options, o) {
		t.Errorf("the Outbox was changed: %+v", got.Options)
	}
}

func TestOutbox_Wait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := new(Outbox)
		b := newBackend(t, outbox)
		var wg sync.WaitGroup
		for range 2 { // several may wait
			wg.Go(func() {
				mails, err := outbox.Wait(t.Context(), 3)
				if len(mails) != 3 || err != nil {
					t.Errorf("Wait: %d messages, %v; want 3, nil", len(mails), err)
				}
			})
		}
		for range 3 {
			synctest.Wait()
			send(t, b, message("A"))
		}
		wg.Wait()
		if mails, err := outbox.Wait(t.Context(), 2); len(mails) != 3 || err != nil {
			t.Errorf("Wait for fewer than there are: %d messages, %v; want 3, nil", len(mails), err)
		}
	})
}

func TestOutbox_Wait_in_vain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := new(Outbox)
		send(t, newBackend(t, outbox), message("A"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		mails, err := outbox.Wait(ctx, 2)
		if mails != nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 messages, have 1") {
			t.Errorf("Wait: %v, %v; want how many were missing", mails, err)
		}
	})
}
