package mailer_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestLinear: the work on each address and each header field is the same however many there are.
// It is counted in allocations, of which comparing names and addresses used to make some.
func TestLinear(t *testing.T) {
	const n = 1000
	list := func(n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf("recipient-%d@EXAMPLE.com", i)
		}
		return all
	}
	tests := []struct {
		name string
		most float64 // allocations for each
		fill func(m *mailer.EmailMessage, n int)
	}{
		{"headers", 10, func(m *mailer.EmailMessage, n int) {
			for i := range n {
				m.Headers[fmt.Sprintf("x-id-%d", i)] = "value"
			}
		}},
		{"to", 10, func(m *mailer.EmailMessage, n int) { m.To = list(n) }},
		{"bcc", 10, func(m *mailer.EmailMessage, n int) { m.Bcc = list(n) }},
		{"reply_to", 10, func(m *mailer.EmailMessage, n int) { m.ReplyTo = list(n) }},
		{"to in headers", 20, func(m *mailer.EmailMessage, n int) { m.Headers["to"] = strings.Join(list(n), ", ") }},
		{"bcc in headers", 20, func(m *mailer.EmailMessage, n int) { m.Headers["bcc"] = strings.Join(list(n), ", ") }},
		{"some of the recipients", 20, func(m *mailer.EmailMessage, n int) {
			m.To = list(n)
			*m = *m.WithRecipients(list(n))
		}},
		{"fields of a raw message", 10, func(m *mailer.EmailMessage, n int) {
			*m = *rawMessage(rawHead + strings.Repeat("x-id: value\n", n) + "\n")
		}},
		{"addresses of a raw message", 22, func(m *mailer.EmailMessage, n int) {
			*m = *rawMessage(rawHead + "To: \u00c4nn <a@example.com>, " + strings.Join(list(n), ",\n ") + "\n\n")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			work := func(n int) float64 {
				m := message()
				tt.fill(m, n)
				return testing.AllocsPerRun(3, func() {
					if err := m.Validate(); err != nil {
						t.Fatal(err)
					}
					if _, err := m.Envelope(); err != nil {
						t.Fatal(err)
					}
					m.WithDefaults(mailer.Defaults{})
					m.Recipients()
					_, _ = m.WriteTo(io.Discard)
				}) / float64(n)
			}
			few, many := work(n), work(4*n)
			t.Logf("%.1f allocations for each of %d, %.1f for each of %d", few, n, many, 4*n)
			if few > tt.most || many > 1.2*few+0.5 {
				t.Errorf("%.1f allocations for each of %d, %.1f for each of %d, want no more than %.0f and as many", few, n, many, 4*n, tt.most)
			}
		})
	}
}
