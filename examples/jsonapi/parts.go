package jsonapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// email is what the API takes.
type email struct {
	From        string            `json:"from"`
	To          []string          `json:"to,omitempty"`
	Cc          []string          `json:"cc,omitempty"`
	Bcc         []string          `json:"bcc,omitempty"`
	ReplyTo     []string          `json:"reply_to,omitempty"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Attachments []attachment      `json:"attachments,omitempty"`
}

type attachment struct {
	Filename  string `json:"filename"`
	Content   []byte `json:"content"` // base64
	Type      string `json:"content_type,omitempty"`
	ContentID string `json:"content_id,omitempty"`
}

// encode makes the JSON of a message. The same message for the same recipients gives the same bytes.
func encode(m *mailer.EmailMessage, envelope mailer.Envelope) ([]byte, error) {
	e := email{From: m.FromEmail, ReplyTo: m.ReplyTo, Subject: m.Subject}
	e.To, e.Cc, e.Bcc = address(m, envelope)
	if err := e.bodies(m); err != nil {
		return nil, err
	}
	e.Headers = map[string]string{"Message-ID": "<" + strings.Trim(m.MessageID, "<>") + ">"}
	for name, value := range m.Headers {
		switch strings.ToLower(name) {
		case "bcc": // in the envelope
		case "return-path": // the API has a sender of its own
		case "from", "sender", "to", "cc", "reply-to", "date":
			return nil, unfit("the header " + name)
		default:
			e.Headers[name] = value
		}
	}
	for _, f := range m.Trace() { // the API has each name once
		if value := e.Headers[f.Name]; value != "" {
			f.Value = value + ", " + f.Value
		}
		e.Headers[f.Name] = f.Value
	}
	for _, a := range m.Attachments {
		e.Attachments = append(e.Attachments, attachment{a.Filename, a.Content, a.Mimetype, a.ContentID})
	}
	return json.Marshal(e)
}

// bodies takes text and HTML. What there is no field for fails: to leave it out would be another message.
func (e *email) bodies(m *mailer.EmailMessage) error {
	switch {
	case len(m.Raw) > 0:
		return unfit("a finished message (Raw)")
	case m.ContentSubtype == "html":
		e.HTML = m.Body
	case m.ContentSubtype == "" || m.ContentSubtype == "plain":
		e.Text = m.Body
	default:
		return unfit("a body of type text/" + m.ContentSubtype)
	}
	for _, a := range m.Alternatives {
		if a.Mimetype != "text/html" || e.HTML != "" {
			return unfit("an alternative of type " + a.Mimetype)
		}
		e.HTML = a.Content
	}
	return nil
}

// unfit is a dead letter at once: no other try would help.
func unfit(what string) error {
	return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: errors.New("jsonapi: the API has no field for " + what)}
}

// address says who gets the message: those of the envelope, and nobody else. The API sends to whom it is shown, and has no
// envelope. So a message that goes to some of its recipients only (OnlyTo), since the others have it, must not name the
// others. Who is in no visible field is a blind copy.
func address(m *mailer.EmailMessage, envelope mailer.Envelope) (to, cc, bcc []string) {
	left := slices.Clone(envelope.To)
	take := func(list []string) (taken []string) {
		for _, entry := range list {
			// The envelope of this entry alone is the address in the form that it has in the other.
			one, err := (&mailer.EmailMessage{FromEmail: m.FromEmail, To: []string{entry}}).Envelope()
			if err != nil || len(one.To) == 0 {
				continue
			}
			if i := slices.Index(left, one.To[0]); i >= 0 {
				taken, left = append(taken, entry), slices.Delete(left, i, i+1)
			}
		}
		return taken
	}
	to, cc = take(m.To), take(m.Cc)
	return to, cc, left
}

// idempotencyKey is the same at every try. The recipients are in it: a message that was accepted for some of them is tried
// again for the others with the same Message-ID, and is no repetition.
func idempotencyKey(m *mailer.EmailMessage, envelope mailer.Envelope) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", envelope.To))
	return strings.Trim(m.MessageID, "<>") + "/" + hex.EncodeToString(sum[:8])
}
