package mailer

import (
	"bytes"
	"slices"
	"testing"
)

func TestEmailMessage_WithRecipients(t *testing.T) {
	t.Parallel()
	m := &EmailMessage{
		FromEmail: "app@example.com", MessageID: "<1@example.com>",
		To: []string{"Ann <ann@example.com>", "bob@example.com"}, Bcc: []string{"eve@example.com"},
	}
	narrow := m.WithRecipients([]string{"eve@EXAMPLE.com", "ann@example.com", "stranger@example.com"})
	got, err := narrow.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ann@example.com", "eve@example.com"}; !slices.Equal(got.To, want) {
		t.Errorf("recipients %v, want %v", got.To, want)
	}
	if all, err := m.Envelope(); err != nil || len(all.To) != 3 {
		t.Errorf("the message itself now goes to %v (%v)", all.To, err)
	}
	var before, after bytes.Buffer
	if _, err := m.WriteTo(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := narrow.WriteTo(&after); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Errorf("rendered as\n%s\nwant\n%s", after.Bytes(), before.Bytes())
	}
	if none, err := m.WithRecipients(nil).Envelope(); err != nil || len(none.To) != 0 {
		t.Errorf("narrowed to nobody it goes to %v (%v)", none.To, err)
	}
}
