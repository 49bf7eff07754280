package mailer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestWithDefaults(t *testing.T) {
	empty := &mailer.EmailMessage{}
	got := empty.WithDefaults(mailer.Defaults{FromEmail: "app@example.com", Charset: "iso-8859-1", Hostname: "b\u00fccher.example"})
	if got.FromEmail != "app@example.com" || got.Charset != "iso-8859-1" || got.Date.Location().String() != "UTC" || got.Date.Nanosecond() != 0 {
		t.Errorf("got %+v", got)
	}
	if want := "@xn--bcher-kva.example>"; len(got.MessageID) <= len(want) || got.MessageID[len(got.MessageID)-len(want):] != want {
		t.Errorf("got %s", got.MessageID)
	}
	if again := got.WithDefaults(mailer.Defaults{FromEmail: "other@example.com"}); again != got {
		t.Error("a complete message was copied")
	}
	if other := empty.WithDefaults(mailer.Defaults{Hostname: "no domain"}); other.MessageID == got.MessageID || other.Validate() != nil {
		t.Errorf("got %s", other.MessageID)
	}
	if local := empty.WithDefaults(mailer.Defaults{LocalTime: true}); local.Date.Location() != time.Local {
		t.Errorf("got %v", local.Date.Location())
	}
	own := message(withHeader("message-ID", "<own@example.com>"), withHeader("DATE", "yesterday"))
	own.MessageID, own.Date = "", empty.Date
	if got := own.WithDefaults(mailer.Defaults{}); got.MessageID != "<own@example.com>" || !got.Date.IsZero() {
		t.Errorf("got %s, %v", got.MessageID, got.Date)
	}
}

func TestAttachFile(t *testing.T) {
	m := message()
	if err := m.AttachFile("testdata/golden/text.eml", ""); err != nil {
		t.Fatal(err)
	}
	if a := m.Attachments[0]; a.Filename != "text.eml" || len(a.Content) == 0 {
		t.Errorf("got %q with %d octets", a.Filename, len(a.Content))
	}
	if got := parse(t, render(t, m)).leaf(1).media; got != "message/rfc822" {
		t.Errorf("got %s", got)
	}
	if err := m.AttachFile("testdata/none", ""); err == nil || len(m.Attachments) != 1 {
		t.Errorf("got %v, %d attachments", err, len(m.Attachments))
	}
}

func TestBodyContains(t *testing.T) {
	m := message(withBody("Hello, Ann"), withAlternative("<p>Hello, <b>Ann</b></p>", "Text/HTML"), withAlternative("{}", "application/json"))
	for text, want := range map[string]bool{"Hello, ": true, "Ann": true, "Hello, Ann": false, "<p>": false, "{}": false} {
		if got := m.BodyContains(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestEmailMessage_Contents(t *testing.T) {
	t.Parallel()
	m := &mailer.EmailMessage{
		Body:         "body",
		Alternatives: []mailer.Alternative{{Content: "<p>body</p>", Mimetype: "text/html"}},
		Attachments:  []mailer.Attachment{{Filename: "a.txt", Content: []byte("a"), Mimetype: "text/plain", ContentID: "id"}, {}},
	}
	want := []mailer.Content{
		{Field: "attachments", Index: 0, Size: 1, Labels: 17},
		{Field: "attachments", Index: 1},
		{Field: "alternatives", Index: 0, Size: 11, Labels: 9},
		{Field: "body", Size: 4},
		{Field: "raw"},
	}
	if got := slices.Collect(m.Contents()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	n := 0
	for range m.Contents() { // a caller may stop at any of them
		if n++; n == 4 {
			break
		}
	}
}
