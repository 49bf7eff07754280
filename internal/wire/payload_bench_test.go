package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// BenchmarkPayload is what the JSON of a mail of 2 kB costs, on both sides of Redis.
func BenchmarkPayload(b *testing.B) {
	m := (&mailer.EmailMessage{
		Subject: "Your order 1234 has been shipped", Body: strings.Repeat("A line of a mail of two kilobytes.\n", 57),
		FromEmail: "shop@example.com", To: []string{"ann@example.com"},
	}).WithDefaults(mailer.Defaults{Hostname: "app.example.com"})
	p := &Payload{Meta: Meta{DueAt: time.Now().UTC().Truncate(time.Millisecond)}, Message: m}
	data, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(data, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode, its message alone", func(b *testing.B) {
		body, err := m.MarshalJSON()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := new(mailer.EmailMessage).UnmarshalJSON(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Validate(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("envelope", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Envelope(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
