package mailer_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestWithSignature: the fields come first, the newest on top, and all that follows is as it was, in every form a message has.
func TestWithSignature(t *testing.T) {
	t.Parallel()
	html := message(withBody("Grüße\n"), withAlternative("<p>ä</p>", "text/html"))
	html.Attach("a.txt", []byte("a\n"), "")
	finished := func(raw string) *mailer.EmailMessage {
		return &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"b@example.com"}, Raw: []byte(raw)}
	}
	for name, m := range map[string]*mailer.EmailMessage{
		"parts": html, "raw": finished("From: a@example.com\n\nbody\n"),
		"raw anew": finished("From: a@example.com\nSubject: s\n\n" + strings.Repeat("x", 2000)),
	} {
		plain, asText := rendered(t, m, false), rendered(t, m, true)
		first := m.WithSignature([]byte("X-One: 1\r\n folded\r\n"))
		both := first.WithSignature([]byte("X-Two: 2\r\n"))
		if got, want := rendered(t, both, false), "X-Two: 2\r\nX-One: 1\r\n folded\r\n"+plain; got != want {
			t.Errorf("%s: got\n%s", name, got)
		}
		if got := rendered(t, both, true); got != rendered(t, both, false) {
			t.Errorf("%s: WriteText writes other bytes:\n%s", name, got)
		}
		if rendered(t, m, false) != plain || rendered(t, m, true) != asText {
			t.Errorf("%s: the message itself has changed", name)
		}
		if got := len(rendered(t, both, false)); both.EstimateSize() < got {
			t.Errorf("%s: %d bytes estimated, %d written", name, both.EstimateSize(), got)
		}
	}
}

func rendered(t *testing.T, m *mailer.EmailMessage, asText bool) string {
	t.Helper()
	var b bytes.Buffer
	write := m.WriteTo
	if asText {
		write = m.WriteText
	}
	if _, err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWithSignature_refused: nothing that is no header field gets into a message this way.
func TestWithSignature_refused(t *testing.T) {
	t.Parallel()
	for _, fields := range []string{
		"X: y", "X: y\n", "X: y\r\n\r\n", "X: y\r\n\r\nbody\r\n", "\r\n", " X: y\r\n", "X y\r\n", ": y\r\n", "X : y\r\n", "X: y\r\n \t\r\n", "X: a\rb\r\n", "X: a\nb\r\n",
		"X: \x00\r\n", "X: ä\r\n", "X: " + strings.Repeat("y", 996) + "\r\n",
	} {
		m := message().WithSignature([]byte(fields))
		var b bytes.Buffer
		_, err := m.WriteTo(&b)
		var header *mailer.BadHeaderError
		var invalid *mailer.InvalidMessageError
		if b.Len() > 0 || !errors.As(err, &header) && !errors.As(err, &invalid) {
			t.Errorf("%q: %d bytes were written, error %v", fields, b.Len(), err)
		}
		if m.Validate() == nil {
			t.Errorf("%q: Validate says nothing", fields)
		}
	}
}
