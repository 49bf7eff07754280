package mailer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestClassOf(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want mailer.Class
	}{
		{"says so", &mailer.SendError{Class: mailer.Unknown}, mailer.Unknown},
		{"wrapped", fmt.Errorf("smtp: %w", &mailer.SendError{Class: mailer.Unavailable}), mailer.Unavailable},
		{"in a batch of one", mailer.SendErrors{nil, &mailer.SendError{Class: mailer.Permanent}}, mailer.Permanent},
		{"bad header", &mailer.BadHeaderError{}, mailer.Permanent},
		{"bad message, wrapped", fmt.Errorf("x: %w", &mailer.InvalidMessageError{}), mailer.Permanent},
		{"anything else", io.ErrUnexpectedEOF, mailer.Temporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mailer.ClassOf(tt.err); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestErrors_texts(t *testing.T) {
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "no such user", Recipient: "a@example.com"}
	tests := []struct {
		err  error
		want string
	}{
		{refused, "RCPT <a@example.com>: 550 5.1.1 no such user"},
		{&mailer.SendError{Step: mailer.StepConnect, Err: io.EOF}, "connect: EOF"},
		{mailer.Result{Refused: []*mailer.SendError{refused}}.Error(), "RCPT: accepted, but not for all recipients; RCPT <a@example.com>: 550 5.1.1 no such user"},
		{mailer.SendErrors{nil, nil}, "no errors"},
		{mailer.SendErrors{nil, io.EOF}, "EOF"},
		{mailer.SendErrors{nil, io.EOF, refused}, "2 of 3 messages failed, the first with: EOF"},
		{&mailer.BadHeaderError{Field: "to[1]", Reason: "has a LF"}, "bad header: to[1]: has a LF"},
		{&mailer.InvalidMessageError{Field: "body", Reason: "is not valid UTF-8"}, "invalid message: body: is not valid UTF-8"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for c, want := range map[mailer.Class]string{
		mailer.Temporary: "temporary", mailer.Permanent: "permanent", mailer.Unavailable: "unavailable", mailer.Unknown: "unknown", 9: "class(9)",
	} {
		if got := c.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestErrorAt(t *testing.T) {
	each := mailer.SendErrors{nil, io.EOF}
	if mailer.ErrorAt(each, 0) != nil || !errors.Is(mailer.ErrorAt(each, 1), io.EOF) || mailer.ErrorAt(each, 2) != nil {
		t.Error("entries are not aligned")
	}
	if !errors.Is(mailer.ErrorAt(io.EOF, 7), io.EOF) || mailer.ErrorAt(nil, 0) != nil {
		t.Error("an error of the batch is every message's")
	}
	if !errors.Is(each, io.EOF) {
		t.Error("errors.Is does not look into the entries")
	}
}

// eachRecorder is a recorder that reports messages one by one.
type eachRecorder struct {
	recorder
	results []mailer.Result
}

func (r *eachRecorder) SendEach(_ context.Context, messages []*mailer.EmailMessage, report func(int, mailer.Result)) {
	for i := range messages {
		report(i, r.results[i])
	}
}

// groupRecorder is a recorder that reports all messages but the first one together.
type groupRecorder struct{ eachRecorder }

func (r *groupRecorder) SendGroups(_ context.Context, messages []*mailer.EmailMessage, report func([]mailer.Report)) {
	group := make([]mailer.Report, len(messages))
	for i := range messages {
		group[i] = mailer.Report{Index: i, Result: r.results[i]}
	}
	report(group[:1])
	report(group[1:])
}

func TestSendGroups(t *testing.T) {
	messages := []*mailer.EmailMessage{message(), message(func(m *mailer.EmailMessage) { m.To = nil }), message()}
	refused := &mailer.SendError{Step: mailer.StepRcpt, Recipient: "a@example.com"}
	collect := func(groups int, b mailer.Backend) []mailer.Result {
		got := make([]mailer.Result, len(messages))
		mailer.SendGroups(t.Context(), b, messages, func(group []mailer.Report) {
			for _, r := range group {
				got[r.Index] = r.Result
			}
			groups--
		})
		if groups != 0 {
			t.Errorf("%T: %d groups too few", b, groups)
		}
		return got
	}
	plain := collect(1, &recorder{err: mailer.SendErrors{nil, nil, refused}})
	if plain[0].Err != nil || plain[0].Skipped || !plain[1].Skipped || !errors.Is(plain[2].Err, refused) {
		t.Errorf("got %+v", plain)
	}
	own := []mailer.Result{{Reply: "250 ok"}, {Skipped: true}, {Refused: []*mailer.SendError{refused}}}
	for _, each := range [][]mailer.Result{collect(3, &eachRecorder{results: own}), collect(2, &groupRecorder{eachRecorder{results: own}})} {
		if each[0].Reply != "250 ok" || !each[1].Skipped || len(each[2].Refused) != 1 {
			t.Errorf("got %+v", each)
		}
	}
}

func TestCollect(t *testing.T) {
	refused := &mailer.SendError{Step: mailer.StepRcpt}
	tests := []struct {
		name    string
		results []mailer.Result
		sent    int
		failed  []bool
	}{
		{"all accepted", []mailer.Result{{}, {}}, 2, nil},
		{"nobody to send to", []mailer.Result{{Skipped: true}, {}}, 1, nil},
		{"one failed", []mailer.Result{{}, {Err: io.EOF}}, 1, []bool{false, true}},
		{"some recipients refused", []mailer.Result{{Refused: []*mailer.SendError{refused}}, {}}, 2, []bool{true, false}},
		{"no messages", nil, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sent, err := mailer.Collect(len(tt.results), func(report func(int, mailer.Result)) {
				for i, r := range slices.Backward(tt.results) {
					report(i, r)
				}
			})
			if sent != tt.sent || (err != nil) != (tt.failed != nil) {
				t.Fatalf("got %d, %v", sent, err)
			}
			for i, failed := range tt.failed {
				if (mailer.ErrorAt(err, i) != nil) != failed {
					t.Errorf("message %d: got %v", i, mailer.ErrorAt(err, i))
				}
			}
		})
	}
}
