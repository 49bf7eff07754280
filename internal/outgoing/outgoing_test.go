package outgoing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// What is wrapped keeps the contract, with SendBatch and without.
func TestWrap_conformance(t *testing.T) {
	t.Parallel()
	copied := func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) { return new(*m), nil }
	for name, backend := range map[string]func(mailer.Backend) mailer.Backend{
		"batches": func(b mailer.Backend) mailer.Backend { return b },
		"plain":   func(b mailer.Backend) mailer.Backend { return struct{ mailer.Backend }{b} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mailertest.Run(t, func(t *testing.T) mailertest.Harness {
				outbox := new(locmem.Outbox)
				inner := backend(newLocmem(t, outbox))
				b := outgoing.Wrap(outgoing.Wrap(inner, copied), copied)
				if _, want := inner.(mailer.BatchSender); want != isBatchSender(b) {
					t.Errorf("it is a BatchSender: %t", !want)
				}
				if outgoing.Unwrap(b) != inner {
					t.Error("Unwrap has not found the backend")
				}
				return mailertest.Harness{Backend: b, Received: func() []mailertest.Mail {
					var all []mailertest.Mail
					for _, m := range outbox.Messages() {
						all = append(all, mailertest.Mail{Envelope: m.Envelope, Data: m.Raw})
					}
					return all
				}}
			})
		})
	}
}

func newLocmem(t *testing.T, outbox *locmem.Outbox) mailer.Backend {
	b, err := locmem.New(locmem.Config{Outbox: outbox})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func isBatchSender(b mailer.Backend) bool { _, ok := b.(mailer.BatchSender); return ok }

// connector is a backend that opens connections while it sends.
type connector struct {
	mailer.Backend
	via func(ctx context.Context, connect func() error) error
}

func (c *connector) ConnectVia(via func(ctx context.Context, connect func() error) error) {
	c.via = via
}
func (c *connector) Account() string { return "me at example.com" }

type batchConnector struct {
	connector
	mailer.BatchSender
}

// What a backend can do besides, it can do wrapped.
func TestWrap_connector(t *testing.T) {
	t.Parallel()
	for name, inner := range map[string]mailer.Backend{"plain": new(connector), "batches": new(batchConnector)} {
		b := outgoing.Wrap(inner, nil)
		c, ok := b.(mailer.Connector)
		if !ok || c.Account() != "me at example.com" || isBatchSender(b) != (name == "batches") {
			t.Errorf("%s: it is %T", name, b)
			continue
		}
		c.ConnectVia(func(context.Context, func() error) error { return nil })
		if via := inner.(interface{ hasVia() bool }); !via.hasVia() {
			t.Errorf("%s: ConnectVia was not passed on", name)
		}
	}
	if _, ok := outgoing.Wrap(newLocmem(t, nil), nil).(mailer.Connector); ok {
		t.Error("a backend that is no Connector has become one")
	}
}

func (c *connector) hasVia() bool { return c.via != nil }

// relay answers by recipient, and keeps what it has accepted.
type relay struct {
	says map[string]*mailer.SendError // by recipient; of all: ""
	took []string
}

func (r *relay) Open(context.Context) (bool, error) { return true, nil }
func (r *relay) Close() error                       { return nil }

func (r *relay) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, r, messages)
}

func (r *relay) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.Deliver(ctx, r, b, mailer.Defaults{}, func(_ *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
		if e := r.says[""]; e != nil {
			return mailer.Result{Err: e}
		}
		var refused []*mailer.SendError
		for _, addr := range to.To {
			if e := r.says[strings.ToLower(addr)]; e != nil {
				refused = append(refused, &mailer.SendError{Class: e.Class, Step: mailer.StepRcpt, Text: e.Text, Recipient: addr})
			} else {
				r.took = append(r.took, addr)
			}
		}
		if len(refused) == len(to.To) {
			return mailer.Result{Err: &mailer.SendError{Class: refused[0].Class, Step: mailer.StepRcpt, Refused: refused}}
		}
		return mailer.Result{Reply: "250 Ok", Refused: refused}
	})
}

// The relay's answers in terms of the recipients that a message was given with.
func TestWrap_results(t *testing.T) {
	t.Parallel()
	later, never := &mailer.SendError{Text: "later"}, &mailer.SendError{Class: mailer.Permanent, Text: "never"}
	to := func(recipients ...string) outgoing.Func {
		return func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
			c := *m
			c.To = recipients
			return &c, nil
		}
	}
	without := func(refused ...string) outgoing.Func {
		return func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
			no := &mailer.SendError{Class: mailer.Permanent, Accepted: true}
			for _, addr := range refused {
				no.Refused = append(no.Refused, &mailer.SendError{Class: mailer.Permanent, Text: "not allowed", Recipient: addr})
			}
			left := slices.DeleteFunc(slices.Clone(m.To), func(addr string) bool { return slices.Contains(refused, addr) })
			return m.WithRecipients(left), no
		}
	}
	tests := []struct {
		name   string
		to     string
		change outgoing.Func
		says   map[string]*mailer.SendError
		took   string
		want   string
	}{
		{"other bytes", "a@x b@x", to("a@x", "b@X"), map[string]*mailer.SendError{"b@x": never}, "a@x", "250 Ok; b@x never"},

		{"in their place, accepted", "a@x b@x", to("qa@x"), nil, "qa@x", "250 Ok"},
		{"in their place, one of two accepted", "a@x b@x", to("qa@x", "qb@x"), map[string]*mailer.SendError{"qa@x": never}, "qb@x", "250 Ok"},
		{"in their place, refused for good", "a@x b@x", to("qa@x"), map[string]*mailer.SendError{"qa@x": never}, "", "permanent: never (RCPT <qa@x>)"},
		{"in their place, refused for now", "a@x b@x", to("qa@x", "qb@x"), map[string]*mailer.SendError{"qa@x": later, "qb@x": later}, "", "temporary: later (RCPT <qa@x>)"},
		{"in their place, the message refused", "a@x", to("qa@x"), map[string]*mailer.SendError{"": never}, "", "permanent: never ()"},

		{"one in another's place, accepted", "a@x b@x", to("a@x", "c@x"), nil, "a@x c@x", "250 Ok"},
		{"one in another's place, refused", "a@x b@x", to("a@x", "c@x"), map[string]*mailer.SendError{"c@x": later}, "a@x", "250 Ok; b@x later"},
		{"one in another's place, the other refused", "a@x b@x", to("a@x", "c@x"), map[string]*mailer.SendError{"a@x": never}, "c@x", "250 Ok; a@x never"},
		{"one more, refused", "a@x", to("a@x", "c@x"), map[string]*mailer.SendError{"c@x": never}, "a@x", "250 Ok"},
		{"one more, alone accepted", "a@x", to("a@x", "c@x"), map[string]*mailer.SendError{"a@x": never}, "c@x", "permanent: never (RCPT <a@x>)"},
		{"one fewer, accepted", "a@x b@x", to("a@x"), nil, "a@x", "250 Ok"},
		{"one fewer, refused", "a@x b@x", to("a@x"), map[string]*mailer.SendError{"a@x": later}, "", "temporary: later (RCPT <a@x>)"},

		{"not allowed", "a@x b@x", without("b@x"), nil, "a@x", "250 Ok; b@x not allowed"},
		{"not allowed, others refused for now", "a@x b@x", without("b@x"), map[string]*mailer.SendError{"a@x": later}, "", "temporary: later (RCPT <a@x>); not allowed ( <b@x>)"},
		{"not allowed, others refused for good", "a@x b@x", without("b@x"), map[string]*mailer.SendError{"a@x": never}, "", "permanent: never (RCPT <a@x>); not allowed ( <b@x>)"},
		{"none allowed", "a@x b@x", without("b@x", "a@x"), nil, "", "permanent: not allowed ( <b@x>, <a@x>)"},

		{"stopped", "a@x", func(context.Context, *mailer.EmailMessage) (*mailer.EmailMessage, error) { return nil, never }, nil, "", "permanent: never ()"},
		{"stopped, with the message", "a@x", func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) { return m, io.EOF }, nil, "", "temporary: EOF"},
		{"nobody left", "a@x", to(), nil, "", "temporary: outgoing: a message that had recipients has none any more"},
		{"no message left", "a@x", func(context.Context, *mailer.EmailMessage) (*mailer.EmailMessage, error) { return nil, nil }, nil, "", "temporary: outgoing: neither a message nor an error"},
		{"bad recipients", "a@x", to("a@x\r\nDATA"), nil, "", "permanent: bad header: to[0]: has the control character CR"},
		{"bad bytes", "a@x", func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
			c := *m
			c.Subject = "x\ny"
			return &c, nil
		}, nil, "", "permanent: bad header: subject: has the control character LF"},
		{"a panic", "a@x", func(context.Context, *mailer.EmailMessage) (*mailer.EmailMessage, error) { panic("secret") }, nil, "", "temporary: panic with a string"},
		{"a panic of Go", "a@x", func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
			return m.Redirect(m.To[len(m.To)]), nil
		}, nil, "", "temporary: panic: runtime error: index out of range [1] with length 1"},
		{"nobody before", "", func(context.Context, *mailer.EmailMessage) (*mailer.EmailMessage, error) { panic("asked") }, nil, "", "skipped"},
		{"bad before", "no address", func(context.Context, *mailer.EmailMessage) (*mailer.EmailMessage, error) { panic("asked") }, nil, "", "permanent: invalid message: to[0]: is not an address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &relay{says: tt.says}
			m := &mailer.EmailMessage{FromEmail: "me@example.com", To: strings.Fields(tt.to)}
			if tt.name == "bad before" {
				m.To = []string{tt.to}
			}
			got := ""
			mailer.SendBatch(t.Context(), outgoing.Wrap(r, tt.change), mailer.Batch{Messages: []*mailer.EmailMessage{m}, Report: func(group []mailer.Report) {
				got += said(group[0].Result)
			}})
			if got != tt.want || strings.Join(r.took, " ") != tt.took {
				t.Errorf("it took %q and said\n%s, want %q and\n%s", r.took, got, tt.took, tt.want)
			}
		})
	}
}

// said is a result in a line.
func said(r mailer.Result) string {
	switch {
	case r.Skipped:
		return "skipped"
	case r.Err != nil:
		return mailer.ClassOf(r.Err).String() + ": " + r.Err.Error()
	}
	line := r.Reply
	for _, e := range r.Refused {
		line += "; " + e.Recipient + " " + e.Text
	}
	return line
}

// A message is changed when Begin has said yes, once, and only one whose turn comes.
func TestBatch_turn(t *testing.T) {
	t.Parallel()
	var log []string
	inner := &again{}
	messages := []*mailer.EmailMessage{{To: []string{"a@x"}}, {To: []string{"b@x"}}}
	changed := &mailer.EmailMessage{To: []string{"c@x"}}
	inner.SendBatch(t.Context(), outgoing.Batch(mailer.Batch{
		Messages: messages,
		Begin: func(i int) (*mailer.EmailMessage, error) {
			log = append(log, fmt.Sprintf("begin %d", i))
			if i == 1 {
				return nil, errors.New("too late")
			}
			return messages[i], nil
		},
		Report: func(group []mailer.Report) { log = append(log, fmt.Sprintf("report %d", group[0].Index)) },
	}, func(i int, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
		log = append(log, fmt.Sprintf("change %d", i))
		if m != messages[i] {
			t.Errorf("it was given %v", m)
		}
		return changed, nil
	}, nil))
	if want := []string{"begin 0", "change 0", "begin 0", "report 0", "begin 1", "begin 1", "report 1"}; !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
	if want := []*mailer.EmailMessage{changed, changed, nil, nil}; !slices.Equal(inner.got, want) {
		t.Errorf("it was to send %v", inner.got)
	}
}

// again is a backend that turns to each message twice.
type again struct{ got []*mailer.EmailMessage }

func (a *again) SendBatch(_ context.Context, b mailer.Batch) {
	for i := range b.Messages {
		for range 2 {
			m, _ := b.Begin(i)
			a.got = append(a.got, m)
		}
		b.Report([]mailer.Report{{Index: i}})
	}
}

// The changed message has the same bytes however often it is tried, and the one that was given is as it was.
func TestWrap_leaves_the_message(t *testing.T) {
	t.Parallel()
	outbox := new(locmem.Outbox)
	b := outgoing.Wrap(newLocmem(t, outbox), func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
		c := *m
		c.Subject, c.To = "Changed", []string{"qa@example.com"}
		return &c, nil
	})
	m := (&mailer.EmailMessage{Subject: "Given", FromEmail: "me@example.com", To: []string{"ann@example.org"}}).WithDefaults(mailer.Defaults{})
	for range 2 {
		if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m}); sent != 1 || err != nil {
			t.Fatal(sent, err)
		}
	}
	got := outbox.Messages()
	if !bytes.Equal(got[0].Raw, got[1].Raw) || !strings.Contains(string(got[0].Raw), "Subject: Changed") || m.Subject != "Given" {
		t.Errorf("got %s\nand %s", got[0].Raw, got[1].Raw)
	}
}
