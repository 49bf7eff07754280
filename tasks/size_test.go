package tasks

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestQueue_maxMessageSize(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	many := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("recipient-%d@example.com", i)
		}
		return list
	}
	long := strings.Repeat("word ", 20_000)
	tests := []struct {
		name   string
		limit  int
		change func(*mailer.EmailMessage)
		field  string // "" if it is taken
	}{
		{"no limit", 0, with(brochure(1, 1<<20)), ""},
		{"under it", 1_500_000, with(brochure(1, 1<<20)), ""},
		{"over it when encoded", 1_400_000, with(brochure(1, 1<<20)), "attachments"},
		{"a long body", 100_000, func(m *mailer.EmailMessage) { m.Body = strings.Repeat("é\n", 20_000) }, "body"},
		{"a long alternative", 100_000, func(m *mailer.EmailMessage) { m.AttachAlternative(strings.Repeat("line\n", 20_000), "text/html") }, "alternatives"},
		{"a long subject", 100_000, func(m *mailer.EmailMessage) { m.Subject = long }, "subject"},
		{"a long name of the author", 100_000, func(m *mailer.EmailMessage) { m.FromEmail = long + "<a@example.com>" }, "from_email"},
		{"many in to", 100_000, func(m *mailer.EmailMessage) { m.To = many(4000) }, "to"},
		{"many in cc", 100_000, func(m *mailer.EmailMessage) { m.Cc = many(4000) }, "cc"},
		{"many in bcc, which are not sent", 100_000, func(m *mailer.EmailMessage) { m.Bcc = many(4000) }, "bcc"},
		{"many in reply_to", 100_000, func(m *mailer.EmailMessage) { m.ReplyTo = many(4000) }, "reply_to"},
		{"entries that are empty", 100_000, func(m *mailer.EmailMessage) { m.Cc = make([]string, 40_000) }, "cc"},
		{"many recipients of a raw message", 100_000, func(m *mailer.EmailMessage) {
			*m = mailer.EmailMessage{Raw: []byte("From: a@example.com\n\nbody\n"), To: many(4000)}
		}, "to"},
		{"many headers", 100_000, func(m *mailer.EmailMessage) {
			m.Headers = map[string]string{}
			for i := range 10_000 {
				m.Headers[fmt.Sprintf("X-Id-%d", i)] = "1"
			}
		}, "headers"},
		{"a long header", 100_000, func(m *mailer.EmailMessage) { m.Headers = map[string]string{"X-A": long} }, "headers"},
		{"blind copies in headers", 100_000, func(m *mailer.EmailMessage) {
			m.Headers = map[string]string{"Bcc": strings.Join(many(4000), ",")}
		}, "headers"},
		{"many names of files", 100_000, func(m *mailer.EmailMessage) {
			for range 500 {
				m.Attach(strings.Repeat("n", 250), nil, "")
			}
		}, "attachments"},
		{"many types", 100_000, func(m *mailer.EmailMessage) {
			for range 500 {
				m.AttachAlternative("", "text/x; a="+strings.Repeat("n", 250))
			}
		}, "alternatives"},
		{"a subject that is long when it is encoded", 100_000, func(m *mailer.EmailMessage) { m.Subject = strings.Repeat("é", 40_000) }, "subject"},
		{"recipients under it", 200_000, func(m *mailer.EmailMessage) { m.To, m.Bcc = many(1000), many(2000) }, ""},
	}
	limits := map[int]string{100_000: "more than the 100.0 kB of", 1_400_000: "more than the 1.4 MB of"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := NewQueue(h.Client(t), QueueConfig{MaxMessageSize: tt.limit})
			m := message("ann@example.com")
			tt.change(m)
			id, err := q.Enqueue(t.Context(), m)
			if tt.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			for way, err := range map[string]error{"Enqueue": err, "SendMessages": mailer.ErrorAt(sendOne(t, q, m), 0), "CheckSize": q.CheckSize(m)} {
				var invalid *mailer.InvalidMessageError
				if !errors.As(err, &invalid) || invalid.Field != tt.field || !strings.Contains(invalid.Reason, limits[tt.limit]) || id != "" {
					t.Errorf("%s = %q, %v, want %s to be named with the limit", way, id, err, tt.field)
				}
			}
		})
	}
}

func sendOne(t *testing.T, q *Queue, m *mailer.EmailMessage) error {
	t.Helper()
	_, err := q.SendMessages(t.Context(), []*mailer.EmailMessage{m})
	return err
}

// A message that has no large field but many of them does not make a bulk task large.
func TestBulk_size(t *testing.T) {
	t.Parallel()
	b := new(bulk)
	m := &mailer.EmailMessage{Subject: strings.Repeat("s", 1000), ReplyTo: []string{strings.Repeat("r", 1000)}, Headers: map[string]string{"X-A": strings.Repeat("h", 1000)}}
	if got := b.size(&wire.Payload{Message: m}); got < 3000 || got > 3100 {
		t.Errorf("size = %d, want 3,000 and a little", got)
	}
}
