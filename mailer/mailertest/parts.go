package mailertest

import (
	"bytes"
	"fmt"
	"maps"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// partsOf are the parts of a message of this suite.
func partsOf(m *mailer.EmailMessage) *Parts {
	p := &Parts{
		From: m.FromEmail, To: m.To, Cc: m.Cc, ReplyTo: m.ReplyTo, Subject: m.Subject, Text: m.Body,
		Headers: maps.Clone(m.Headers), MessageID: m.MessageID,
	}
	for _, a := range m.Alternatives {
		p.HTML = a.Content
	}
	for _, a := range m.Attachments {
		a.Content = bytes.Clone(a.Content)
		p.Attachments = append(p.Attachments, a)
	}
	p.To, p.Cc, p.ReplyTo = slices.Clone(p.To), slices.Clone(p.Cc), slices.Clone(p.ReplyTo)
	return p
}

// sameParts compares what arrived with what was sent. some says that the message goes to some of its recipients only: then
// the others need not be shown.
func sameParts(got, want *Parts, some bool) bool {
	return got != nil &&
		slices.Equal(mailboxes(got.From), mailboxes(want.From)) &&
		sameShown(got.To, want.To, some) && sameShown(got.Cc, want.Cc, some) &&
		slices.Equal(mailboxes(got.ReplyTo...), mailboxes(want.ReplyTo...)) &&
		got.Subject == want.Subject && sameText(got.Text, want.Text) && sameText(got.HTML, want.HTML) &&
		maps.Equal(canonical(got.Headers), canonical(want.Headers)) &&
		(got.MessageID == "" || bare(got.MessageID) == bare(want.MessageID)) &&
		slices.EqualFunc(got.Attachments, want.Attachments, sameAttachment)
}

func sameShown(got, want []string, some bool) bool {
	has, must := mailboxes(got...), mailboxes(want...)
	if !some {
		return slices.Equal(has, must)
	}
	return !slices.ContainsFunc(has, func(m string) bool { return !slices.Contains(must, m) })
}

// mailboxes are addresses in one way of writing. What cannot be read is as it is.
func mailboxes(list ...string) []string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = s
		if a, err := mail.ParseAddress(s); err == nil {
			all[i] = a.String()
		}
	}
	return all
}

func sameText(got, want string) bool {
	return bytes.Equal(withLF([]byte(got)), withLF([]byte(want)))
}

func canonical(headers map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range headers {
		all[textproto.CanonicalMIMEHeaderKey(name)] = value
	}
	return all
}

// bare is an ID without its brackets.
func bare(id string) string { return strings.Trim(id, "<>") }

func sameAttachment(got, want mailer.Attachment) bool {
	return got.Filename == want.Filename && got.Mimetype == want.Mimetype && bare(got.ContentID) == bare(want.ContentID) &&
		bytes.Equal(got.Content, want.Content)
}

// shown is a mail for people.
func (m Mail) shown() string {
	if m.Parts != nil {
		return fmt.Sprintf("%+v", *m.Parts)
	}
	return string(m.Data)
}

// withLF returns data with LF line ends, and without those at its end: SMTP adds one if
// there is none, and a file may end with a blank line.
func withLF(data []byte) []byte {
	return bytes.TrimRight(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), "\n")
}
