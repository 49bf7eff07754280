package mailer_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func text(t testing.TB, m *mailer.EmailMessage) string {
	t.Helper()
	var b bytes.Buffer
	n, err := m.WriteText(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatal(n, b.Len(), err)
	}
	return b.String()
}

// Text is written as text, whatever else the message has, and is read back the same.
func TestEmailMessage_WriteText(t *testing.T) {
	t.Parallel()
	const greek = "Καλημέρα, κόσμε\n"
	for _, tt := range []struct {
		name     string
		m        *mailer.EmailMessage
		want     []string // is in it
		encoding string   // of the first part
	}{
		{"a few letters", message(withBody("Grüße, = and more\n")), []string{"\r\n\r\nGrüße, = and more\r\n"}, "8bit"},
		{"all of it", message(withBody(greek)), []string{"\r\n\r\nΚαλημέρα, κόσμε\r\n"}, "8bit"},
		{"ASCII", message(), []string{"\r\n\r\nContent\r\n"}, "7bit"},
		{"HTML", message(withBody(greek), withAlternative("<p>Ω</p>\n", "text/html")), []string{"Καλημέρα", "<p>Ω</p>"}, "8bit"},
		{"a file with text", message(withBody(greek), withAttachment(mailer.Attachment{Filename: "a.csv", Content: []byte("α,β\n")})), []string{"α,β"}, "8bit"},
		{"a picture", message(withBody(greek), withAttachment(mailer.Attachment{Filename: "a.png", Content: []byte("\x89PNG\xff")})), []string{"iVBOR/8="}, "8bit"},
		{"a control character", message(withBody("ä\x1b[2J and some more text\n")), []string{"=C3=A4=1B[2J"}, "quoted-printable"},
		{"another control character", message(withBody("ä\u009b2J and some more text\n")), []string{"=C3=A4=C2=9B2J"}, "quoted-printable"},
		{"a long line", message(withBody(strings.Repeat("ä and text of this line ", 100) + "\n")), []string{"=C3=A4 and"}, "quoted-printable"},
		{"another charset", message(withBody("Grüße, and more\n"), func(m *mailer.EmailMessage) { m.Charset = "iso-8859-1" }), []string{"Gr=FC=DFe"}, "quoted-printable"},
		{"raw", &mailer.EmailMessage{To: []string{"a@example.com"}, FromEmail: "b@example.com", Raw: []byte("Subject: x\nContent-Transfer-Encoding: base64\n\n4pyT\n")}, []string{"4pyT"}, "base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := text(t, tt.m)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			_, first, _ := strings.Cut(got, "\r\nContent-Transfer-Encoding: ")
			if encoding, _, _ := strings.Cut(first, "\r\n"); encoding != tt.encoding {
				t.Errorf("encoding %q, want %q", encoding, tt.encoding)
			}
			if sent := render(t, tt.m); strings.Contains(sent, "8bit") {
				t.Errorf("8bit is sent:\n%s", sent)
			}
			if len(tt.m.Raw) > 0 {
				return
			}
			if a, b := parse(t, got).leaves(), parse(t, render(t, tt.m)).leaves(); !slices.Equal(a, b) {
				t.Errorf("the text reads %q, what is sent %q", a, b)
			}
		})
	}
	if _, err := message(withHeader("X\n", "y")).WriteText(nil); !mailer.IsBadInput(err) {
		t.Errorf("a bad message: %v", err)
	}
}
