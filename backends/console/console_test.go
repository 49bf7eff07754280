package console_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

var separator = "\n" + strings.Repeat("-", 79) + "\n"

func TestConformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Parallel()
		var out bytes.Buffer
		return mailertest.Harness{
			Backend:    newBackend(t, &out),
			NoEnvelope: true,
			Text:       true,
			Received: func() []mailertest.Mail {
				var mails []mailertest.Mail
				for _, entry := range entries(t, out.String()) {
					mails = append(mails, mailertest.Mail{Data: []byte(entry)})
				}
				return mails
			},
		}
	})
}

func newBackend(t *testing.T, w io.Writer) *console.Backend {
	t.Helper()
	b, err := console.New(console.Config{Writer: w})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries splits what a console shows.
func entries(t *testing.T, shown string) []string {
	t.Helper()
	all := strings.Split(shown, separator)
	last := len(all) - 1
	if all[last] != "" {
		t.Errorf("something without a separator at the end: %q", all[last])
	}
	return all[:last]
}

func message(subject string) *mailer.EmailMessage {
	return &mailer.EmailMessage{
		Subject: subject, Body: "one\ntwo\r\nthree", FromEmail: "from@example.com",
		To: []string{"to@example.org"}, Bcc: []string{"bcc@example.org"}, MessageID: "<1@example.com>",
	}
}

func TestBackend_SendMessages_output(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		messages []*mailer.EmailMessage
		want     []string // what each entry has in it
		sent     int
		failed   []int
	}{
		{"one", []*mailer.EmailMessage{message("A")}, []string{"Subject: A\n"}, 1, nil},
		{"two", []*mailer.EmailMessage{message("A"), message("B")}, []string{"Subject: A\n", "Subject: B\n"}, 2, nil},
		{"none", nil, nil, 0, nil},
		{
			"a bad one is left out", []*mailer.EmailMessage{message("A"), message("B\r\nBcc: x@example.com"), message("C")},
			[]string{"Subject: A\n", "Subject: C\n"}, 2, []int{1},
		},
		{"line ends", []*mailer.EmailMessage{message("A")}, []string{"\n\none\ntwo\nthree\n"}, 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out writes
			sent, err := newBackend(t, &out).SendMessages(t.Context(), tt.messages)
			if sent != tt.sent {
				t.Errorf("sent %d, want %d", sent, tt.sent)
			}
			for i := range tt.messages {
				if got, want := mailer.ErrorAt(err, i) != nil, slices.Contains(tt.failed, i); got != want {
					t.Errorf("message %d: error %v", i, mailer.ErrorAt(err, i))
				}
			}
			if len(out) != len(tt.want) {
				t.Fatalf("%d writes, want one for each of %d messages", len(out), len(tt.want))
			}
			for i, w := range out {
				if !strings.Contains(w, tt.want[i]) || !strings.HasSuffix(w, separator) {
					t.Errorf("write %d is %q, want %q in it and the separator at its end", i, w, tt.want[i])
				}
				if strings.Contains(w, "\r") || strings.Contains(w, "bcc@") {
					t.Errorf("write %d has a CR or the blind copy in it: %q", i, w)
				}
			}
		})
	}
}

// writes keeps each Write by itself.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestBackend_SendMessages_defaults(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b, err := console.New(console.Config{Writer: &out, Defaults: mailer.Defaults{FromEmail: "shop@example.com", Hostname: "mx.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{{To: []string{"to@example.org"}}}); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	for _, want := range []string{"From: shop@example.com\n", "@mx.example.com>\n", "\nDate: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}

// brokenPipe fails or writes short, except for messages with "good" in them.
type brokenPipe struct {
	bytes.Buffer
	err error
}

func (w *brokenPipe) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("good")) {
		return w.Buffer.Write(p)
	}
	return len(p) / 2, w.err
}

func TestBackend_SendMessages_write_error(t *testing.T) {
	t.Parallel()
	errPipe := errors.New("broken pipe")
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"error", errPipe, errPipe},
		{"short write", nil, io.ErrShortWrite},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out := &brokenPipe{err: tt.err}
			sent, err := newBackend(t, out).SendMessages(t.Context(), []*mailer.EmailMessage{message("good 1"), message("lost"), message("good 2")})
			if sent != 2 || mailer.ErrorAt(err, 0) != nil || mailer.ErrorAt(err, 2) != nil {
				t.Errorf("sent %d, %v; want the first and the last message", sent, err)
			}
			if failed := mailer.ErrorAt(err, 1); !errors.Is(failed, tt.want) || mailer.ClassOf(failed) != mailer.Unavailable {
				t.Errorf("lost message: %v of the class %v", failed, mailer.ClassOf(failed))
			}
			if got := len(entries(t, out.String())); got != 2 {
				t.Errorf("%d messages were written, want 2", got)
			}
		})
	}
}

// slowly takes one octet after the other and lets others run in between.
type slowly struct{ bytes.Buffer }

func (w *slowly) Write(p []byte) (int, error) {
	for _, c := range p {
		w.WriteByte(c)
		runtime.Gosched()
	}
	return len(p), nil
}

func TestBackend_messages_never_interleave(t *testing.T) {
	t.Parallel()
	const senders, each = 5, 20
	tests := []struct {
		name     string
		backends func(t *testing.T, w io.Writer) []*console.Backend
	}{
		{"one backend", func(t *testing.T, w io.Writer) []*console.Backend {
			return slices.Repeat([]*console.Backend{newBackend(t, w)}, senders)
		}},
		{"several backends on one Output", func(t *testing.T, w io.Writer) []*console.Backend {
			out := console.NewOutput(w)
			var all []*console.Backend
			for range senders {
				all = append(all, newBackend(t, out))
			}
			return all
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out slowly
			var wg sync.WaitGroup
			for i, b := range tt.backends(t, &out) {
				wg.Go(func() {
					for j := range each {
						subject := fmt.Sprintf("%d/%d", i, j)
						if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{message(subject)}); sent != 1 || err != nil {
							t.Errorf("%s: %d, %v", subject, sent, err)
						}
					}
				})
			}
			wg.Wait()
			shown := entries(t, out.String())
			if len(shown) != senders*each {
				t.Errorf("%d messages, want %d", len(shown), senders*each)
			}
			for _, entry := range shown {
				if !strings.HasPrefix(entry, "From: from@example.com\n") || !strings.HasSuffix(entry, "\n\none\ntwo\nthree\n") {
					t.Errorf("not one whole message: %q", entry)
				}
			}
		})
	}
}

func TestBackend_SendMessages_text(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := message("Grüße")
	m.Body = "Grüße aus Köln.\nΚαλημέρα\n"
	if sent, err := newBackend(t, &out).SendMessages(t.Context(), []*mailer.EmailMessage{m}); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	if want := "Content-Transfer-Encoding: 8bit\n\nGrüße aus Köln.\nΚαλημέρα\n" + separator; !strings.HasSuffix(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}
