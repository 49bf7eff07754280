package mailer_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// benchMessages are the three sizes that the project measures itself by.
func benchMessages() []struct {
	name    string
	message *mailer.EmailMessage
} {
	line := "The quick brown fox jumps over the lazy dog, again and again.\n"
	text := func() *mailer.EmailMessage {
		return &mailer.EmailMessage{
			Subject:   "Your order has been shipped",
			Body:      strings.Repeat(line, 2048/len(line)),
			FromEmail: "Shop <shop@example.com>",
			To:        []string{"Fred Smith <fred@example.org>"},
			MessageID: "<bench@example.com>",
			Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		}
	}
	html := text()
	html.AttachAlternative(strings.Repeat("<p>Gr\u00fc\u00dfe: "+line+"</p>", 4096/70), "text/html")
	attachment := text()
	attachment.AttachAlternative(strings.Repeat("<p>Gr\u00fc\u00dfe: "+line+"</p>", 4096/70), "text/html")
	attachment.Attach("data.bin", bytes.Repeat([]byte("\x00\x01\xfe\xffdata"), 1<<20/8), "application/octet-stream")
	return []struct {
		name    string
		message *mailer.EmailMessage
	}{{"2kB text", text()}, {"with 4kB html", html}, {"with 1MB attachment", attachment}}
}

func BenchmarkWriteTo(b *testing.B) {
	for _, tt := range benchMessages() {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tt.message.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, tt := range benchMessages() {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := tt.message.Validate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMarshalJSON(b *testing.B) {
	for _, tt := range benchMessages() {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tt.message.MarshalJSON(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnmarshalJSON(b *testing.B) {
	for _, tt := range benchMessages() {
		data, err := json.Marshal(tt.message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var m mailer.EmailMessage
				if err := m.UnmarshalJSON(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
