package mailer_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func written(t *testing.T, m *mailer.EmailMessage) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if n, size := b.Len(), m.EstimateSize(); n > size {
		t.Errorf("%d bytes, and %d were estimated", n, size)
	}
	return b.String()
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	m := message(func(m *mailer.EmailMessage) {
		m.To, m.Cc, m.Bcc = []string{"Ann <ann@example.org>"}, []string{"bob@example.org"}, []string{"hidden@example.org"}
		m.Headers = map[string]string{"to": "everybody@example.org", "CC": "c@example.org", "Bcc": "d@example.org", "X-Tag": "x"}
	})
	for name, m := range map[string]*mailer.EmailMessage{"all": m, "some": m.WithRecipients([]string{"bob@example.org"})} {
		to := m.Redirect("QA <qa@example.com>", "qb@example.com")
		e, err := to.Envelope()
		if want := []string{"qa@example.com", "qb@example.com"}; err != nil || !slices.Equal(e.To, want) || to.OnlyTo() != nil {
			t.Errorf("%s: it goes to %s, %v", name, e.To, err)
		}
		if got := written(t, to); strings.Contains(got, "example.org") || !strings.Contains(got, "To: QA <qa@example.com>, qb@example.com\r\n") || !strings.Contains(got, "X-Tag: x\r\n") {
			t.Errorf("%s: it is\n%s", name, got)
		}
	}
	if len(m.Headers) != 4 || m.To[0] != "Ann <ann@example.org>" {
		t.Error("the message itself was changed")
	}
}

func TestWithTrace(t *testing.T) {
	t.Parallel()
	fields := []mailer.Field{{Name: "X-Original-To", Value: "ann@example.org"}, {Name: "X-Original-To", Value: "jürgen@example.org"}}
	want := "X-Original-To: ann@example.org\r\nX-Original-To: =?utf-8?q?j=C3=BCrgen@example.org?=\r\n"
	raw := []byte("From: a@example.org\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nBody\r\n")
	for name, m := range map[string]*mailer.EmailMessage{
		"composed": message(),
		"finished": {FromEmail: "a@example.org", To: []string{"b@example.org"}, Raw: raw},
		"many":     {FromEmail: "a@example.org", To: []string{"b@example.org"}, Raw: raw},
	} {
		plain, with := written(t, m), m.WithTrace(fields...)
		if name == "many" {
			for range 300 {
				with = with.WithTrace(mailer.Field{Name: "X-Original-To", Value: strings.Repeat("x", 60) + "@example.org"})
			}
			written(t, with) // as long as was estimated
			continue
		}
		got := written(t, with)
		head, body, _ := strings.Cut(got, "\r\nFrom: ")
		if head+"\r\n" != want || "From: "+body != plain {
			t.Errorf("%s: got\n%s\nwant in front\n%s", name, got, want)
		}
		if written(t, m) != plain || !slices.Equal(with.Trace(), fields) || m.Trace() != nil {
			t.Errorf("%s: the message itself was changed", name)
		}
	}
}

// Nobody's header is written by a value.
func TestWithTrace_refuses(t *testing.T) {
	t.Parallel()
	for _, f := range []mailer.Field{{"X-A", "x\r\nBcc: victim@example.com"}, {"X-A: x\r\nBcc", "y"}, {"", "x"}, {"X-A", "\x00"}, {"Content-Type", "text/html"}} {
		for name, m := range map[string]*mailer.EmailMessage{
			"composed": message(), "finished": {FromEmail: "a@example.org", Raw: []byte("Subject: x\r\n\r\n")},
		} {
			m = m.WithTrace(f)
			if err := m.Validate(); !mailer.IsBadInput(err) {
				t.Errorf("%s: %q: %v", name, f, err)
			}
			if _, err := m.WriteTo(new(bytes.Buffer)); !mailer.IsBadInput(err) {
				t.Errorf("%s: %q is written: %v", name, f, err)
			}
		}
	}
	if header := new(mailer.BadHeaderError); !errors.As(message().WithTrace(mailer.Field{Name: "X-A", Value: "x\ny"}).Validate(), &header) || header.Field != "headers[X-A]" {
		t.Errorf("the field is called %q", header.Field)
	}
}
