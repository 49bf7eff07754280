package site

import (
	"errors"

	"github.com/mailpouch/mailpouch/mailer"
)

// The mails that come of an entry, in their order.
const (
	toAdmins = iota
	toVisitor
)

// mails are the message for the admins and a confirmation for the visitor.
//
// The first one is what Mailer.MailAdmins sends, with a Reply-To, so that an answer goes to
// the visitor. It is From us: a visitor's own address there would be a forgery, which
// DMARC has receivers refuse.
//
// The second one goes to whatever address was entered, which may be somebody else's. So
// it says the same to everybody and has not a word of the entry: nobody can send
// anything of their own through it. Auto-Submitted keeps other machines from answering (RFC 3834).
func (s *site) mails(e entry) []*mailer.EmailMessage {
	return []*mailer.EmailMessage{
		toAdmins: {
			Subject:   s.cfg.SubjectPrefix + e.Subject,
			Body:      e.Message,
			FromEmail: s.cfg.ServerEmail,
			To:        s.cfg.Admins,
			ReplyTo:   []string{e.From},
		},
		toVisitor: {
			Subject: "We have your message",
			Body:    confirmation,
			To:      []string{e.From},
			Headers: map[string]string{"Auto-Submitted": "auto-replied"},
		},
	}
}

const confirmation = `Hello,

your message has reached us. We read it soon and answer to this address.

If you did not write to us, somebody entered your address by mistake, and
there is nothing that you need to do.
`

// isInjection reports whether an entry would write header fields of its own, such as
// "Hello\nBcc: everybody@example.com". No browser sends that.
func isInjection(mails []*mailer.EmailMessage) bool {
	for _, m := range mails {
		var bad *mailer.BadHeaderError
		if errors.As(m.Validate(), &bad) {
			return true
		}
	}
	return false
}
