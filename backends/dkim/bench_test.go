//go:build unix

package dkim

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// BenchmarkSign is what a message costs that is rendered for the wire: as it is, and signed. The processor's time (cpu-us/op) is
// good on a busy machine too.
func BenchmarkSign(b *testing.B) {
	for _, size := range []struct {
		name string
		m    *mailer.EmailMessage
	}{
		{"2kB", message(body(strings.Repeat("a line of text with some words in it, as people write\n", 38)))},
		{"1MB", message(func(m *mailer.EmailMessage) { m.Attach("a.bin", bytes.Repeat([]byte{0, 1, 2, 255}, 250_000), "") })},
	} {
		for _, how := range []struct {
			name string
			keys []Key
		}{{"unsigned", nil}, {"rsa2048", bothKeys()[:1]}, {"ed25519", bothKeys()[1:]}, {"both", bothKeys()}} {
			b.Run(size.name+"/"+how.name, func(b *testing.B) {
				sign := func(m *mailer.EmailMessage) *mailer.EmailMessage { return m }
				if how.keys != nil {
					s := must(New(Config{Keys: how.keys}))
					sign = func(m *mailer.EmailMessage) *mailer.EmailMessage { return must(s.Sign(b.Context(), m)) }
				}
				var wire bytes.Buffer
				b.ReportAllocs()
				before := processorTime()
				for b.Loop() {
					wire.Reset()
					if _, err := sign(size.m).WriteTo(&wire); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((processorTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
			})
		}
	}
}

// processorTime is what the process has used of it.
func processorTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
