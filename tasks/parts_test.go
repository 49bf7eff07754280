package tasks

import (
	"bytes"
	"context"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// Whatever part of a message is big, it waits beside the queue, and arrives with the same
// octets: at once, after it was a dead letter, and where it was already as a part of another.
func TestBlobs_parts(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("Grüße und mehr\n.ein Punkt\n", 5000)
	raw := "From: a@example.com\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <0@t>\r\nSubject: raw\r\n\r\n"
	tests := []struct {
		name   string
		change func(*mailer.EmailMessage)
		blobs  int
		lost   string // the name of the part
	}{
		{"body", func(m *mailer.EmailMessage) { m.Body = text }, 1, "body"},
		{"alternative", func(m *mailer.EmailMessage) { m.AttachAlternative(text, "text/html") }, 1, "alternative 1 (text/html)"},
		{"raw", func(m *mailer.EmailMessage) {
			*m = mailer.EmailMessage{To: m.To, FromEmail: "a@example.com", Raw: []byte(raw + strings.Repeat("plain\r\n", 20000))}
		}, 1, "raw message"},
		{"all of the same", func(m *mailer.EmailMessage) {
			m.Body = text
			m.AttachAlternative("<p>small</p>", "text/html")
			m.AttachAlternative(text, "text/html")
			m.Attach("a.txt", []byte(text), "")
		}, 1, `attachment "a.txt"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			m := message("ann@example.com")
			m.MessageID = "<0@t>"
			tt.change(m)
			m = m.WithDefaults(mailer.Defaults{})
			var want bytes.Buffer
			if _, err := m.WriteTo(&want); err != nil {
				t.Fatal(err)
			}
			id, err := h.queue.Enqueue(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(h.Client(t).Keys(t.Context(), "mailpouch:*:blob").Val()); n != tt.blobs {
				t.Errorf("%d blobs, want %d", n, tt.blobs)
			}
			if n := len(pending(t, h.Server, "default")[0].Payload); n > 4000 {
				t.Errorf("the payload has %d octets", n)
			}
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				return mailer.Result{Err: sendError(mailer.Permanent, 554, "no")}
			}
			stop := h.start(h.config())
			h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
			stop()
			h.wantWhole(id, want.Bytes())
			d := NewDeadLetters(h.Client(t))
			again, err := d.Replay(t.Context(), "default", id)
			if err != nil {
				t.Fatal(err)
			}
			h.relay.answer = nil
			stop = h.start(h.config())
			h.wait(1)
			h.empty()
			stop()
			if got := h.relay.all()[0].data; !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s arrived with %d octets, others than the %d that were handed over", again, len(got), want.Len())
			}

			if id, err = h.queue.Enqueue(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			h.Client(t).Del(t.Context(), h.Client(t).Keys(t.Context(), "mailpouch:*:blob").Val()...)
			h.start(h.config())
			h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
			l, err := d.Get("default", id)
			if err != nil || !strings.Contains(l.Reason, tt.lost+": its content") {
				t.Errorf("the reason is %q, %v; want %s named", l.Reason, err, tt.lost)
			}
			if len(l.Missing) == 0 || !strings.Contains(l.Missing[0], tt.lost+": its content") {
				t.Errorf("missing is %q, want %s", l.Missing, tt.lost)
			}
		})
	}
}

// wantWhole wants a dead letter to be all of a message, and its summary to be less.
func (h *house) wantWhole(id string, want []byte) {
	h.t.Helper()
	d := NewDeadLetters(h.Client(h.t))
	l, err := d.Get("default", id)
	if err != nil {
		h.t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := l.Message.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
		h.t.Errorf("the dead letter is a message of %d octets, %v; want %d", got.Len(), err, len(want))
	}
	s, err := d.Summary("default", id)
	if err != nil {
		h.t.Fatal(err)
	}
	const beginning = 16 << 10 // of a raw message that is stored beside the queue
	if w := weight.Of(s.Message); w.Sum() > 5000+beginning {
		h.t.Errorf("the summary has %d octets", w.Sum())
	}
	if got, want := s.Message.RawHeader("Subject"), l.Message.RawHeader("Subject"); got != want {
		h.t.Errorf("the summary has the subject %q, want %q", got, want)
	}
}
