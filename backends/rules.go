package backends

import (
	"context"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// Variables of the rules.
const (
	overrideVariable = "EMAIL_OVERRIDE_RECIPIENTS"
	allowedVariable  = "EMAIL_ALLOWED_RECIPIENTS"
)

// ruled returns a backend that sends through b by the rules of the settings: where the mail is sent, so that no producer can get
// round them. Who is not allowed is refused before all that is left goes to somebody else.
func ruled(b mailer.Backend, s settings.Settings) (mailer.Backend, error) {
	if to := s.Delivery.OverrideRecipients; len(to) > 0 {
		if err := (&mailer.EmailMessage{To: to}).Validate(); err != nil {
			return nil, settings.Problems{{Name: s.Variable(overrideVariable), Text: err.Error()}}
		}
		b = outgoing.Wrap(b, override(to, Defaults(s)))
	}
	if only := s.Delivery.AllowedRecipients; !only.Everybody() {
		b = outgoing.Wrap(b, allow(newAllowed(only), Defaults(s)))
	}
	return b, nil
}

// override sends all mail to these, with a field for each recipient that it was for. Those are of the envelope: a message that is
// tried again for some of its recipients names these alone, as its copies did that came through.
func override(to []string, defaults mailer.Defaults) outgoing.Func {
	return func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
		envelope, err := m.WithDefaults(defaults).Envelope()
		if err != nil {
			return nil, err
		}
		original := make([]mailer.Field, len(envelope.To))
		for i, addr := range envelope.To {
			original[i] = mailer.Field{Name: "X-Original-To", Value: addr}
		}
		return m.Redirect(to...).WithTrace(original...), nil
	}
}

// allow refuses the recipients who may get no mail.
func allow(who allowed, defaults mailer.Defaults) outgoing.Func {
	return func(_ context.Context, m *mailer.EmailMessage) (*mailer.EmailMessage, error) {
		envelope, err := m.WithDefaults(defaults).Envelope()
		if err != nil {
			return nil, err
		}
		var refused []*mailer.SendError
		left := slices.DeleteFunc(envelope.To, func(addr string) bool {
			if who.has(addr) {
				return false
			}
			refused = append(refused, &mailer.SendError{
				Class: mailer.Permanent, Step: mailer.StepPolicy, Text: "not allowed here by " + allowedVariable, Recipient: addr,
			})
			return true
		})
		if len(refused) == 0 {
			return m, nil
		}
		return m.WithRecipients(left), &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepPolicy, Accepted: len(left) > 0, Refused: refused}
	}
}

// allowed is who may get mail, in lower case, with domains as they are in an envelope.
type allowed struct {
	addresses, domains map[string]bool
	below              []string // with the dot before them
}

func newAllowed(entries settings.Allowed) allowed {
	a := allowed{addresses: map[string]bool{}, domains: map[string]bool{}}
	for _, entry := range entries {
		at := strings.LastIndexByte(entry, '@')
		domain, below := strings.CutPrefix(entry[at+1:], ".")
		domain = strings.ToLower(ascii(domain))
		switch {
		case at >= 0:
			a.addresses[strings.ToLower(entry[:at])+"@"+domain] = true
		case below:
			a.below = append(a.below, "."+domain)
			a.domains[domain] = true
		default:
			a.domains[domain] = true
		}
	}
	return a
}

// has reports whether an address of an envelope may get mail. Upper and lower case are the same, also before the @: no server
// that matters tells them apart.
func (a allowed) has(addr string) bool {
	addr = strings.ToLower(addr)
	domain := addr[strings.LastIndexByte(addr, '@')+1:]
	return a.addresses[addr] || a.domains[domain] || slices.ContainsFunc(a.below, func(suffix string) bool { return strings.HasSuffix(domain, suffix) })
}
