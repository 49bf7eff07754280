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

// batchRecorder is a recorder that reports the first message by itself and the others
// together.
type batchRecorder struct {
	recorder
	results []mailer.Result
}

func (r *batchRecorder) SendBatch(_ context.Context, b mailer.Batch) {
	group := make([]mailer.Report, len(r.results))
	for i := range r.results {
		group[i] = mailer.Report{Index: i, Result: r.results[i]}
	}
	b.Report(group[:min(1, len(group))])
	b.Report(group[min(1, len(group)):])
}

func TestSendBatch(t *testing.T) {
	toNobody := message(func(m *mailer.EmailMessage) { m.To = nil })
	messages := []*mailer.EmailMessage{message(), toNobody, message(), message()}
	no := errors.New("too late")
	refuse := func(refused ...int) func(int) error {
		return func(i int) error {
			if slices.Contains(refused, i) {
				return no
			}
			return nil
		}
	}
	results := []mailer.Result{{Reply: "250 ok"}, {Skipped: true}, {Err: io.EOF}, {}}
	refused := mailer.Result{Refused: []*mailer.SendError{{Step: mailer.StepRcpt}}}.Error()
	tests := []struct {
		name    string
		backend mailer.Backend
		begin   func(int) error
		want    []string // a group each
	}{
		{"a BatchSender", &batchRecorder{results: results}, nil, []string{"0 250 ok", "1 skipped, 2 EOF, 3"}},
		{"another backend", &recorder{err: mailer.SendErrors{nil, nil, io.EOF, nil}}, nil, []string{"0, 1 skipped, 2 EOF, 3"}},
		{"all fail alike", &recorder{err: io.EOF}, nil, []string{"0 EOF, 1 EOF skipped, 2 EOF, 3 EOF"}},
		{"some refused", &recorder{err: mailer.SendErrors{nil, io.EOF}}, refuse(0, 2), []string{"0 too late, 2 too late", "1 skipped, 3 EOF"}},
		{"none refused", &recorder{err: mailer.SendErrors{nil, nil, io.EOF, nil}}, refuse(), []string{"0, 1 skipped, 2 EOF, 3"}},
		{"some recipients refused", &recorder{err: mailer.SendErrors{refused, nil, nil, nil}}, nil, []string{"0 (1 refused), 1 skipped, 2, 3"}},
		{"all refused", &recorder{err: errors.New("it must not be asked")}, refuse(0, 1, 2, 3), []string{"0 too late, 1 too late, 2 too late, 3 too late"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			mailer.SendBatch(t.Context(), tt.backend, mailer.Batch{Messages: messages, Begin: asks(messages, tt.begin), Report: func(group []mailer.Report) {
				line := ""
				for i, r := range group {
					if i > 0 {
						line += ", "
					}
					line += fate(r)
				}
				got = append(got, line)
			}})
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// What Begin returns is what another backend gets.
func TestSendBatch_changed(t *testing.T) {
	other, r := message(), &recorder{}
	mailer.SendBatch(t.Context(), r, mailer.Batch{
		Messages: []*mailer.EmailMessage{message(), message()},
		Begin:    func(int) (*mailer.EmailMessage, error) { return other, nil },
		Report:   func([]mailer.Report) {},
	})
	if len(r.batches) != 1 || !slices.Equal(r.batches[0], []*mailer.EmailMessage{other, other}) {
		t.Errorf("got %v", r.batches)
	}
}

// asks is a Begin that only asks, none if ask is nil.
func asks(messages []*mailer.EmailMessage, ask func(i int) error) func(i int) (*mailer.EmailMessage, error) {
	if ask == nil {
		return nil
	}
	return func(i int) (*mailer.EmailMessage, error) { return messages[i], ask(i) }
}

// fate puts a report in a few words.
func fate(r mailer.Report) string {
	s := fmt.Sprint(r.Index)
	if r.Reply != "" {
		s += " " + r.Reply
	}
	switch {
	case mailer.IsBadInput(r.Err):
		s += " bad"
	case r.Err != nil:
		s += " " + r.Err.Error()
	}
	if r.Skipped {
		s += " skipped"
	}
	if len(r.Refused) > 0 {
		s += fmt.Sprintf(" (%d refused)", len(r.Refused))
	}
	return s
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
			sent, err := mailer.Collect(t.Context(), &batchRecorder{results: tt.results}, make([]*mailer.EmailMessage, len(tt.results)))
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

// opener is a backend that writes down when it is opened and closed.
type opener struct {
	mailer.Backend
	log  *[]string
	open bool
	err  error // of Open
}

func (o *opener) Open(context.Context) (opened bool, err error) {
	if o.open {
		return false, nil
	}
	*o.log = append(*o.log, "open")
	o.open = o.err == nil
	return o.open, o.err
}

func (o *opener) Close() error {
	*o.log = append(*o.log, "close")
	o.open = false
	return nil
}

func TestDeliver(t *testing.T) {
	letter := func(subject string) *mailer.EmailMessage {
		return &mailer.EmailMessage{Subject: subject, To: []string{"a@example.org"}}
	}
	two := []*mailer.EmailMessage{letter("A"), letter("B")}
	toNobody, bad := &mailer.EmailMessage{Subject: "C"}, letter("D\nE")
	down := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("down")}
	tests := []struct {
		name     string
		messages []*mailer.EmailMessage
		backend  opener
		begin    func(i int) (*mailer.EmailMessage, error)
		put      func(o *opener, subject string, cancel func()) mailer.Result
		want     []string
	}{
		{name: "nothing"},
		{
			name: "each is reported before the next one", messages: two,
			want: []string{"open", "begin 0", "put A from from@example.com to [a@example.org]", "0", "begin 1", "put B from from@example.com to [a@example.org]", "1", "close"},
		},
		{
			name: "open already", messages: two[:1], backend: opener{open: true},
			want: []string{"begin 0", "put A from from@example.com to [a@example.org]", "0"},
		},
		{
			name: "results are reported as they are, and a failure stops no other", messages: two, backend: opener{open: true},
			put: func(_ *opener, subject string, _ func()) mailer.Result {
				if subject == "A" {
					return mailer.Result{Err: errors.New("full")}
				}
				return mailer.Result{Reply: "200 ok"}
			},
			want: []string{"begin 0", "put A from from@example.com to [a@example.org]", "0 full", "begin 1", "put B from from@example.com to [a@example.org]", "1 200 ok"},
		},
		{
			name: "bad ones and those to nobody open nothing", messages: []*mailer.EmailMessage{bad, toNobody},
			want: []string{"0 bad", "1 skipped"},
		},
		{
			name: "what Begin refuses is not put", messages: two,
			begin: func(i int) (*mailer.EmailMessage, error) {
				if i == 0 {
					return nil, errors.New("too late")
				}
				return two[i], nil
			},
			want: []string{"open", "begin 0", "0 too late", "begin 1", "put B from from@example.com to [a@example.org]", "1", "close"},
		},
		{
			name: "what Begin returns is completed, checked and put", messages: []*mailer.EmailMessage{two[0], two[0], two[1]}, backend: opener{open: true},
			begin: func(i int) (*mailer.EmailMessage, error) {
				return []*mailer.EmailMessage{bad, toNobody, letter("X")}[i], nil
			},
			want: []string{"begin 0", "0 bad", "begin 1", "1 skipped", "begin 2", "put X from from@example.com to [a@example.org]", "2"},
		},
		{
			name: "nothing is put when the context is done", messages: []*mailer.EmailMessage{two[0], two[1], toNobody, bad}, backend: opener{open: true},
			put: func(_ *opener, _ string, cancel func()) mailer.Result { cancel(); return mailer.Result{} },
			want: []string{
				"begin 0", "put A from from@example.com to [a@example.org]", "0",
				"1 connect: context canceled", "2 skipped", "3 bad",
			},
		},
		{
			name: "it cannot be opened, and is asked once", messages: []*mailer.EmailMessage{two[0], bad, two[1]}, backend: opener{err: down},
			want: []string{"open", "0 connect: down", "1 bad", "2 connect: down"},
		},
		{
			name: "what was open and had to be opened anew stays open", messages: two, backend: opener{open: true},
			put: func(o *opener, _ string, _ func()) mailer.Result { o.open = false; return mailer.Result{} },
			want: []string{
				"begin 0", "put A from from@example.com to [a@example.org]", "0",
				"open", "begin 1", "put B from from@example.com to [a@example.org]", "1",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log []string
			tt.backend.log = &log
			batch := mailer.Batch{
				Messages: tt.messages,
				Begin: func(i int) (*mailer.EmailMessage, error) {
					log = append(log, fmt.Sprintf("begin %d", i))
					if tt.begin == nil {
						return tt.messages[i], nil
					}
					return tt.begin(i)
				},
				Report: func(group []mailer.Report) {
					for _, r := range group {
						log = append(log, fate(r))
					}
				},
			}
			mailer.Deliver(ctx, &tt.backend, batch, mailer.Defaults{FromEmail: "from@example.com"}, func(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
				log = append(log, fmt.Sprintf("put %s from %s to %s", m.Subject, to.From, to.To))
				if tt.put == nil {
					return mailer.Result{}
				}
				return tt.put(&tt.backend, m.Subject, cancel)
			})
			if !slices.Equal(log, tt.want) {
				t.Errorf("got  %q\nwant %q", log, tt.want)
			}
		})
	}
}

// A put that panics leaves nothing open, and what was told before it stays told.
func TestDeliver_panics(t *testing.T) {
	var log []string
	func() {
		defer func() { _ = recover() }()
		o := &opener{log: &log}
		mailer.Deliver(t.Context(), o, mailer.Batch{Messages: []*mailer.EmailMessage{message()}, Report: func([]mailer.Report) {}}, mailer.Defaults{},
			func(*mailer.EmailMessage, mailer.Envelope) mailer.Result { panic("put") })
	}()
	if want := []string{"open", "close"}; !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
}

func TestContextErr(t *testing.T) {
	if err := mailer.ContextErr(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := mailer.ContextErr(ctx); !errors.Is(err, context.Canceled) || mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("%v of the class %v", err, mailer.ClassOf(err))
	}
}
