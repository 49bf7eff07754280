package mailer

import "slices"

// WithRecipients returns a copy of the message that goes to those of its envelope's
// recipients alone, given as bare addresses. It renders to the same bytes: what the
// others see of the message does not change. A queue tries refused recipients again
// with it.
func (m *EmailMessage) WithRecipients(to []string) *EmailMessage {
	c := *m
	c.only = append([]string{}, to...)
	return &c
}

// OnlyTo returns the recipients that WithRecipients was given, nil if the message goes to all
// that it names.
func (m *EmailMessage) OnlyTo() []string { return slices.Clone(m.only) }

// narrowed drops the recipients that WithRecipients left out.
func (m *EmailMessage) narrowed(to []string) []string {
	if m.only == nil {
		return to
	}
	only := make(map[string]bool, len(m.only))
	for _, addr := range m.only {
		only[domainLower(addr)] = true
	}
	return slices.DeleteFunc(to, func(addr string) bool { return !only[domainLower(addr)] })
}
