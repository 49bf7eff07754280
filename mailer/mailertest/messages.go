package mailertest

import (
	"bytes"
	"net/mail"
	"net/textproto"
	"reflect"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// messageChecks are about the message itself.
func messageChecks() []check {
	return []check{
		{
			name:  "content",
			rule:  "a message arrives as it was rendered, or with all its parts, whatever is in it",
			needs: needReceived,
			run:   sendContent,
		},
		{
			name:  "bcc",
			rule:  "Bcc is delivered to and never shown",
			needs: needReceived,
			run:   sendBcc,
		},
		{
			name:  "only_to",
			rule:  "a message that is narrowed by WithRecipients goes to these recipients alone, though it names others",
			needs: needReceived,
			run:   sendOnlyTo,
		},
		{
			name:  "defaults",
			rule:  "what an author left out is filled in when the message is handed over",
			needs: needReceived,
			run:   sendIncomplete,
		},
		{
			name: "unchanged",
			rule: "a message is not changed",
			run: func(p *probe) {
				rich, poor := richSample(), incomplete()
				batch := []*mailer.EmailMessage{rich, poor}
				p.sendAll(batch...)
				if batch[0] != rich || batch[1] != poor {
					p.failf("the slice of messages was changed")
				}
				p.equal("a message with all fields", rich, richSample())
				p.equal("a message with few fields", poor, incomplete())
			},
		},
		{
			name:  "not_kept",
			rule:  "a message is not kept after the call: its author may change it",
			needs: needReceived,
			run: func(p *probe) {
				batch := []*mailer.EmailMessage{richSample(), rawSample()}
				if p.Parts {
					batch[1] = sample(1)
				}
				want := p.render(batch...)
				p.open(true)
				p.sendAll(batch...)
				for _, m := range batch {
					overwrite(m)
				}
				p.close()
				p.arrived(want...)
			},
		},
	}
}

func sendContent(p *probe) {
	if !p.Parts {
		want := p.render(richSample(), rawSample())
		p.sendAll(richSample(), rawSample())
		p.arrived(want...)
		return
	}
	want := p.render(richSample())
	errs := p.send(p.ctx, 1, richSample(), rawSample())
	p.noErrors(errs[:1])
	if c := mailer.ClassOf(errs[1]); errs[1] == nil || c != mailer.Permanent {
		p.failf("a finished message, which has no parts: %v (%v), want an error of the class %v", errs[1], c, mailer.Permanent)
	}
	p.arrived(want...)
}

// sendOnlyTo sends what is tried again for some recipients, as a worker does when others have it already.
func sendOnlyTo(p *probe) {
	m := sample(0)
	m.To = append(m.To, "second@example.net")
	m.Cc = []string{"copy@example.net", "other-copy@example.net"}
	m.Bcc = []string{"hidden@secret.example", "other@secret.example"}
	some := [][]string{{"second@example.net"}, {"copy@example.net"}, {"hidden@secret.example"}, {"second@example.net", "copy@example.net"}}
	batch := make([]*mailer.EmailMessage, 0, len(some))
	for i, only := range some {
		m := *m
		m.MessageID, m.Subject = sample(i).MessageID, sample(i).Subject
		batch = append(batch, m.WithRecipients(only))
	}
	want := p.render(batch...)
	p.sendAll(batch...)
	p.arrived(want...)
}

// sendBcc sends a message with blind copies and one with nothing else.
func sendBcc(p *probe) {
	some, only := sample(0), sample(1)
	some.Cc = []string{"copy@example.net"}
	some.Bcc = []string{"Hidden <hidden@secret.example>", "copy@example.net"}
	only.To, only.Bcc = nil, []string{"alone@secret.example"}
	want := p.render(some, only)
	p.sendAll(some, only)
	p.arrived(want...)
	for _, m := range p.Received() {
		if shown := m.shown(); strings.Contains(shown, "secret.example") {
			p.failf("a Bcc address is in the message:\n%.1000s", shown)
		}
	}
}

// incomplete is as little as an author has to say.
func incomplete() *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: "Short", Body: "Bye", To: []string{"reader@example.net"}}
}

func sendIncomplete(p *probe) {
	p.sendAll(incomplete())
	all := p.Received()
	if len(all) != 1 {
		p.failf("%d messages arrived, want 1", len(all))
		return
	}
	if p.Parts {
		got := all[0].Parts
		if got == nil || !slices.Equal(mailboxes(got.From), mailboxes("webmaster@localhost")) {
			p.failf("the parts are %+v, want From webmaster@localhost", got)
		}
		return
	}
	if got := all[0].Envelope.From; got != "webmaster@localhost" && !p.NoEnvelope {
		p.failf("the sender is %q, want webmaster@localhost", got)
	}
	m, err := mail.ReadMessage(bytes.NewReader(all[0].Data))
	if err != nil {
		p.failf("what arrived cannot be read: %v", err)
		return
	}
	for _, name := range []string{"From", "Date", "Message-ID"} {
		if n := len(m.Header[textproto.CanonicalMIMEHeaderKey(name)]); n != 1 {
			p.failf("there are %d header fields %s, want 1", n, name)
		}
	}
}

func (p *probe) equal(what string, got, want *mailer.EmailMessage) {
	if !reflect.DeepEqual(got, want) {
		p.failf("%s was changed:\n got %+v\nwant %+v", what, got, want)
	}
}

// overwrite changes all that a message refers to.
func overwrite(m *mailer.EmailMessage) {
	for _, list := range [][]string{m.To, m.Cc, m.Bcc, m.ReplyTo} {
		for i := range list {
			list[i] = "scribble@example.com"
		}
	}
	for name := range m.Headers {
		m.Headers[name] = "scribble"
	}
	for i := range m.Attachments {
		for j := range m.Attachments[i].Content {
			m.Attachments[i].Content[j] = '!'
		}
		m.Attachments[i].Filename = "scribble"
	}
	for i := range m.Alternatives {
		m.Alternatives[i].Content = "scribble"
	}
	for i := range m.Raw {
		m.Raw[i] = '!'
	}
	m.Subject, m.Body, m.FromEmail = "scribble", "scribble", "scribble@example.com"
}
