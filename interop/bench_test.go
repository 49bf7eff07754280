package interop

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/mailpouch/mailpouch/mailer"
)

// benchCase is one message for both renderers.
type benchCase struct {
	name       string
	html       string
	attachment []byte
}

const benchLine = "The quick brown fox jumps over the lazy dog, again and again.\n"

var benchTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func benchCases() []benchCase {
	html := strings.Repeat("<p>Gr\u00fc\u00dfe. "+benchLine+"</p>\n", 4096/80)
	return []benchCase{
		{name: "2kB text"},
		{name: "with 4kB html", html: html},
		{name: "with 1MB attachment", html: html, attachment: bytes.Repeat([]byte("\x00\x01\xfe\xffdata"), 1<<20/8)},
	}
}

func benchBody() string { return strings.Repeat(benchLine, 2048/len(benchLine)) }

func (c benchCase) ours() *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: "Your order has been shipped", Body: benchBody(),
		FromEmail: "Shop <shop@example.com>", To: []string{"Fred Smith <fred@example.org>"},
		MessageID: "<bench@example.com>", Date: benchTime,
	}
	if c.html != "" {
		m.AttachAlternative(c.html, "text/html")
	}
	if c.attachment != nil {
		m.Attach("data.bin", c.attachment, "application/octet-stream")
	}
	return m
}

func (c benchCase) theirs(b testing.TB) *gomail.Msg {
	b.Helper()
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.Subject("Your order has been shipped")
	if err := m.From("Shop <shop@example.com>"); err != nil {
		b.Fatal(err)
	}
	if err := m.To("Fred Smith <fred@example.org>"); err != nil {
		b.Fatal(err)
	}
	m.SetMessageIDWithValue("bench@example.com")
	m.SetDateWithValue(benchTime)
	m.SetBodyString(gomail.TypeTextPlain, benchBody())
	if c.html != "" {
		m.AddAlternativeString(gomail.TypeTextHTML, c.html)
	}
	if c.attachment != nil {
		m.AttachReadSeeker("data.bin", bytes.NewReader(c.attachment))
	}
	return m
}

// BenchmarkWriteTo renders the same message with mailer and with go-mail. The bar:
// not slower, and no more allocations.
func BenchmarkWriteTo(b *testing.B) {
	for _, c := range benchCases() {
		renderers := []struct {
			name string
			io.WriterTo
		}{{"mailer", c.ours()}, {"go-mail", c.theirs(b)}}
		for _, r := range renderers {
			b.Run(c.name+"/"+r.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.WriteTo(io.Discard); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestBenchmarkBar holds the part of the bar that does not depend on how busy
// the machine is.
func TestBenchmarkBar(t *testing.T) {
	for _, c := range benchCases() {
		t.Run(c.name, func(t *testing.T) {
			allocs := func(w io.WriterTo) float64 {
				return testing.AllocsPerRun(20, func() {
					if _, err := w.WriteTo(io.Discard); err != nil {
						t.Fatal(err)
					}
				})
			}
			if ours, theirs := allocs(c.ours()), allocs(c.theirs(t)); ours > theirs {
				t.Errorf("%v allocations, go-mail has %v", ours, theirs)
			}
		})
	}
}
