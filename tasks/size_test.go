package tasks

import (
	"errors"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/redistest"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestQueue_maxMessageSize(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
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
	}
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
			var invalid *mailer.InvalidMessageError
			if !errors.As(err, &invalid) || invalid.Field != tt.field || !strings.Contains(invalid.Reason, octets(int64(tt.limit))) || id != "" {
				t.Errorf("Enqueue = %q, %v, want %s to be named with the limit", id, err, tt.field)
			}
		})
	}
}
