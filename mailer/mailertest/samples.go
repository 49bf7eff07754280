package mailertest

import (
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// sample returns a message in which nothing is missing, so that it renders in one way only. The
// same n gives the same message.
func sample(n int) *mailer.EmailMessage {
	return &mailer.EmailMessage{
		Subject:   fmt.Sprintf("Letter %d", n),
		Body:      fmt.Sprintf("Dear reader,\n\nthis is letter %d.\n.\nFrom here on there is nothing.\n", n),
		FromEmail: "Writer <writer@example.org>",
		To:        []string{fmt.Sprintf("Reader %d <reader-%d@example.net>", n, n)},
		Charset:   "utf-8",
		MessageID: fmt.Sprintf("<letter-%d@example.org>", n),
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// samples returns the samples 0 to n-1.
func samples(n int) []*mailer.EmailMessage {
	all := make([]*mailer.EmailMessage, n)
	for i := range all {
		all[i] = sample(i)
	}
	return all
}

// unaddressed is a sample without recipients.
func unaddressed(n int) *mailer.EmailMessage {
	m := sample(n)
	m.To, m.Cc, m.Bcc = []string{""}, nil, nil
	return m
}

// richSample has something in every field.
func richSample() *mailer.EmailMessage {
	m := sample(0)
	m.Subject = "Grüße aus Zürich, こんにちは"
	m.Body = "Ein naïver Text: 日本語, ελληνικά, 🎉\n\n.\n..\nDas war's"
	m.FromEmail = `"Müller, Jürgen" <juergen@example.org>`
	m.To = []string{`"Åström, Bo" <bo@example.net>`, "plain@example.net"}
	m.Cc = []string{"Chris <chris@example.net>"}
	m.Bcc = []string{"Hidden <hidden@secret.example>", "plain@example.net"}
	m.ReplyTo = []string{"answers@example.org"}
	m.Headers = map[string]string{"X-Campaign": "spring", "List-Unsubscribe": "<https://example.org/u/1>"}
	m.AttachAlternative("<p>Grüße &amp; Küsse</p>", "text/html")
	m.Attach("naïve.txt", []byte("plain text\nin two lines\n"), "text/plain")
	m.Attach("all.bin", allOctets(), "application/octet-stream")
	m.Attachments = append(m.Attachments, mailer.Attachment{
		Filename: "dot.png", Content: []byte("\x89PNG\r\n\x1a\n"), Mimetype: "image/png", ContentID: "dot@example.org",
	})
	return m
}

// rawSample is a finished message, with a signature that ends with the first octet changed.
func rawSample() *mailer.EmailMessage {
	m := sample(1)
	m.Subject, m.Body = "", ""
	m.Bcc = []string{"hidden@secret.example"}
	m.Raw = []byte("SUBJECT:Signed\r\nFrom: Writer <writer@example.org>\r\nTo: everybody:;\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\n" +
		"Message-ID: <letter-1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b;\r\n\tprotocol=\"application/pgp-signature\"\r\n\r\n" +
		"preamble\r\n--b\r\n\r\n.\r\n..\r\n  trailing  \r\n\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nxyz\r\n--b--\r\nepilogue\r\n")
	return m
}

// allOctets returns every octet in two orders, so that line ends of all kinds are in it.
func allOctets() []byte {
	all := make([]byte, 0, 512)
	for i := range 256 {
		all = append(all, byte(i))
	}
	for i := range 256 {
		all = append(all, byte(255-i))
	}
	return all
}

// injection is a sample in which the value of one field tries to add another field or command.
type injection struct {
	field  string
	sample *mailer.EmailMessage
}

// injections returns a sample for each field that goes into the header or the
// envelope. Each one tries to send a copy to a victim, or to cut the message short.
func injections() []injection {
	const inject = "x\r\nBcc: victim@example.com"
	fields := []struct {
		name  string
		forge func(m *mailer.EmailMessage)
	}{
		{"subject with CRLF", func(m *mailer.EmailMessage) { m.Subject = inject }},
		{"subject with CR", func(m *mailer.EmailMessage) { m.Subject = "x\rBcc: victim@example.com" }},
		{"subject with LF", func(m *mailer.EmailMessage) { m.Subject = "x\nBcc: victim@example.com" }},
		{"subject with NUL", func(m *mailer.EmailMessage) { m.Subject = "x\x00y" }},
		{"from_email", func(m *mailer.EmailMessage) { m.FromEmail = "a@example.com>\r\nRCPT TO:<victim@example.com" }},
		{"to", func(m *mailer.EmailMessage) { m.To = []string{"a@example.com>\r\nRCPT TO:<victim@example.com"} }},
		{"cc", func(m *mailer.EmailMessage) { m.Cc = []string{"a@example.com\nBcc: victim@example.com"} }},
		{"bcc", func(m *mailer.EmailMessage) { m.Bcc = []string{"a@example.com\r\nDATA"} }},
		{"reply_to", func(m *mailer.EmailMessage) { m.ReplyTo = []string{"a@example.com\nBcc: victim@example.com"} }},
		{"header value", func(m *mailer.EmailMessage) { m.Headers = map[string]string{"X-Tag": inject} }},
		{"header name", func(m *mailer.EmailMessage) { m.Headers = map[string]string{"X-Tag: " + inject: "y"} }},
		{"message_id", func(m *mailer.EmailMessage) { m.MessageID = "<1@example.org>\r\nBcc: victim@example.com" }},
		{"file name", func(m *mailer.EmailMessage) { m.Attach(inject, []byte("x"), "image/png") }},
		{"type of an attachment", func(m *mailer.EmailMessage) { m.Attach("x", []byte("x"), "image/png\r\nX: y") }},
		{"content_id", func(m *mailer.EmailMessage) {
			m.Attachments = []mailer.Attachment{{Content: []byte("x"), Mimetype: "image/png", ContentID: inject}}
		}},
		{"type of an alternative", func(m *mailer.EmailMessage) { m.AttachAlternative("x", "text/html\r\nX: y") }},
		{"content_subtype", func(m *mailer.EmailMessage) { m.ContentSubtype = "plain\r\nX: y" }},
		{"charset", func(m *mailer.EmailMessage) { m.Charset = "utf-8\r\nX: y" }},
	}
	all := make([]injection, len(fields))
	for i, f := range fields {
		m := sample(1000 + i)
		f.forge(m)
		all[i] = injection{field: f.name, sample: m}
	}
	return all
}
