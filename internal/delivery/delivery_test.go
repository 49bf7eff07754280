package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/internal/delivery"
	"github.com/mailpouch/mailpouch/mailer"
)

func message(subject string) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: subject, To: []string{"a@example.org"}}
}

// putFunc takes the subject of a message and may end the context.
type putFunc func(subject string, cancel func()) error

// record runs Each and writes down what happens in which order.
func record(t *testing.T, messages []*mailer.EmailMessage, put putFunc) (log []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	delivery.Each(ctx, messages, mailer.Defaults{FromEmail: "from@example.com"},
		func(i int, r mailer.Result) {
			switch {
			case r.Skipped:
				log = append(log, fmt.Sprintf("%d skipped", i))
			case mailer.IsBadInput(r.Err):
				log = append(log, fmt.Sprintf("%d bad", i))
			case r.Err != nil:
				log = append(log, fmt.Sprintf("%d %v: %v", i, mailer.ClassOf(r.Err), r.Err))
			default:
				log = append(log, fmt.Sprintf("%d accepted", i))
			}
		},
		func(m *mailer.EmailMessage, to mailer.Envelope) error {
			log = append(log, fmt.Sprintf("put %s from %s to %s", m.Subject, to.From, to.To))
			return put(m.Subject, cancel)
		})
	return log
}

func TestEach(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		messages []*mailer.EmailMessage
		put      putFunc
		want     []string
	}{
		{"nothing", nil, nil, nil},
		{
			"each is reported before the next one", []*mailer.EmailMessage{message("A"), message("B")},
			func(string, func()) error { return nil },
			[]string{"put A from from@example.com to [a@example.org]", "0 accepted", "put B from from@example.com to [a@example.org]", "1 accepted"},
		},
		{
			"a failure stops no other", []*mailer.EmailMessage{message("A"), message("B")},
			func(subject string, _ func()) error {
				if subject == "A" {
					return errors.New("full")
				}
				return nil
			},
			[]string{"put A from from@example.com to [a@example.org]", "0 temporary: full", "put B from from@example.com to [a@example.org]", "1 accepted"},
		},
		{
			"bad ones and those to nobody are not put", []*mailer.EmailMessage{message("A\nB"), {Subject: "C"}},
			func(string, func()) error { return nil },
			[]string{"0 bad", "1 skipped"},
		},
		{
			"nothing is put when the context is done", []*mailer.EmailMessage{message("A"), message("B"), {Subject: "C"}, message("D\nE")},
			func(_ string, cancel func()) error { cancel(); return nil },
			[]string{
				"put A from from@example.com to [a@example.org]", "0 accepted",
				"1 unavailable: connect: context canceled", "2 skipped", "3 bad",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := record(t, tt.messages, tt.put); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	if err := delivery.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := delivery.Ready(ctx); !errors.Is(err, context.Canceled) || mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("%v of the class %v", err, mailer.ClassOf(err))
	}
}
