package mailer

import (
	"cmp"
	"maps"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/rawmessage"
)

// Envelope is the sender and the recipients of a message as SMTP has them: bare addresses, with
// internationalised domains in punycode.
type Envelope struct {
	From string   // "" is the null sender
	To   []string // each address once

	// UTF8 reports that an address of the envelope or the header has a local part
	// that is not ASCII, so that the next hop must offer SMTPUTF8 (RFC 6531).
	UTF8 bool
}

// Recipients returns the entries of To, Cc, Bcc and the Bcc of Headers, in this order and as they
// were written, without empty entries and repetitions. WithRecipients does not change it.
func (m *EmailMessage) Recipients() []string {
	all := slices.Concat(m.To, m.Cc, m.Bcc)
	for _, name := range m.envelopeNames() {
		if !address.IsBlindCopy(name) {
			continue
		}
		for entry := range address.Split(m.Headers[name]) {
			all = append(all, entry)
		}
	}
	return address.Unique(slices.DeleteFunc(all, isBlank), func(s string) string { return s })
}

// Envelope returns the message's envelope. The sender is FromEmail, which is one address, or what VERP makes, or the
// Return-Path in Headers; a message by several authors has them in Headers["From"]. The
// recipients are those of To, Cc, Bcc and the Bcc of Headers, never those in the header of Raw.
// An error is a *BadHeaderError or an *InvalidMessageError.
func (m *EmailMessage) Envelope() (Envelope, error) {
	a, err := m.addresses()
	if err != nil {
		return Envelope{}, err
	}
	if a.sender == "" && !a.nullSender {
		return Envelope{}, &InvalidMessageError{Field: "from_email", Reason: "is empty"}
	}
	return Envelope{From: a.sender, To: m.narrowed(a.recipients()), UTF8: a.utf8}, nil
}

// addresses are the addresses of a message, parsed.
type addresses struct {
	from    []address.Mailbox // FromEmail: one, or none if it is empty
	to      []address.Mailbox
	cc      []address.Mailbox
	bcc     []address.Mailbox // with the Bcc of Headers
	replyTo []address.Mailbox

	sender     string // of the envelope
	nullSender bool   // sender is meant to be empty
	utf8       bool
}

// addresses reads every address of the message that its envelope may depend on.
func (m *EmailMessage) addresses() (a addresses, err error) {
	if m.FromEmail != "" {
		if a.from, err = readAddresses("from_email", m.FromEmail); err != nil {
			return a, err
		}
		a.sender = a.from[0].Addr
	}
	for _, l := range []struct {
		field string
		list  []string
		boxes *[]address.Mailbox
	}{
		{"to", m.To, &a.to}, {"cc", m.Cc, &a.cc}, {"bcc", m.Bcc, &a.bcc}, {"reply_to", m.ReplyTo, &a.replyTo},
	} {
		if *l.boxes, err = readAddressList(l.field, l.list); err != nil {
			return a, err
		}
	}
	for _, name := range m.envelopeNames() {
		if err := a.addHeader(name, m.Headers[name]); err != nil {
			return a, err
		}
	}
	if m.VERP != "" {
		if err := m.addVERP(&a); err != nil {
			return a, err
		}
	}
	for _, list := range [][]address.Mailbox{a.from, a.to, a.cc, a.bcc, a.replyTo} {
		a.utf8 = a.utf8 || slices.ContainsFunc(list, address.Mailbox.IsUTF8)
	}
	a.utf8 = a.utf8 || !charset.IsASCII(a.sender) || m.rawUTF8()
	return a, nil
}

// envelopeNames returns the names in Headers that the envelope may depend on, sorted. Only these are
// sorted, because Headers may have a great many others.
func (m *EmailMessage) envelopeNames() []string {
	var names []string
	for name := range m.Headers {
		if address.IsBlindCopy(name) || strings.EqualFold(name, "Return-Path") || headerfield.HoldsAddresses(name) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(strings.Compare(textproto.CanonicalMIMEHeaderKey(a), textproto.CanonicalMIMEHeaderKey(b)), strings.Compare(a, b))
	})
	return names
}

// addHeader adds what a field of Headers contributes to the envelope.
func (a *addresses) addHeader(name, value string) error {
	switch {
	case address.IsBlindCopy(name):
		for box, reason := range address.Each(value) { // without groups, for nobody sees them
			if reason != "" {
				return fieldError(headerField(name), value, reason)
			}
			a.bcc = append(a.bcc, box)
		}
		return checkText(headerField(name), value, charset.WithTab)
	case strings.EqualFold(name, "Return-Path"):
		if isBlank(value) || strings.Trim(value, " \t") == "<>" {
			a.sender, a.nullSender = "", true
			return nil
		}
		boxes, err := readAddresses(headerField(name), value)
		if err != nil {
			return err
		}
		a.sender = boxes[0].Addr
	case headerfield.HoldsAddresses(name):
		_, utf8, _ := address.Check(value) // what cannot be read is refused where it is written
		a.utf8 = a.utf8 || utf8
	}
	return nil
}

// recipients are those of the envelope, each once.
func (a *addresses) recipients() []string {
	to := make([]string, 0, len(a.to)+len(a.cc)+len(a.bcc))
	for _, list := range [][]address.Mailbox{a.to, a.cc, a.bcc} {
		for _, box := range list {
			to = append(to, box.Addr)
		}
	}
	return address.Unique(to, address.LowerDomain)
}

// addVERP makes the sender of the envelope of VERP and the recipient.
func (m *EmailMessage) addVERP(a *addresses) error {
	boxes, err := readAddresses("verp", m.VERP)
	if err != nil {
		return err
	}
	base, to := boxes[0].Addr, a.recipients()
	local, domain := cutAddress(base)
	reason := ""
	_, field, both := m.override("Return-Path")
	switch {
	case both:
		reason = "cannot be given together with " + field
	case domain == "" || strings.HasPrefix(base, `"`):
		reason = "is not an address with a domain and without quotes"
	case len(local) >= maxLocal:
		reason = "leaves no room for a recipient in the " + strconv.Itoa(maxLocal) + " bytes before the @"
	case len(to) > 1:
		reason = "takes a message for each recipient, and this one has " + strconv.Itoa(len(to))
	}
	if reason != "" {
		return &InvalidMessageError{Field: "verp", Reason: reason}
	}
	if a.sender, a.nullSender = base, false; len(to) == 1 {
		a.sender = verpSender(base, to[0])
	}
	return nil
}

// readAddresses reads the one address of a field.
func readAddresses(field, s string) ([]address.Mailbox, error) {
	box, reason := address.Parse(s)
	if reason != "" || !charset.IsClean(s, charset.WithoutTab) {
		return nil, fieldError(field, s, reason)
	}
	return []address.Mailbox{box}, nil
}

// readAddressList reads a list of addresses and leaves out the empty entries.
func readAddressList(field string, list []string) ([]address.Mailbox, error) {
	boxes := make([]address.Mailbox, 0, len(list))
	for i, s := range list {
		if isBlank(s) {
			continue
		}
		box, reason := address.Parse(s)
		if reason != "" || !charset.IsClean(s, charset.WithoutTab) {
			return nil, fieldError(field+"["+strconv.Itoa(i)+"]", s, reason)
		}
		boxes = append(boxes, box)
	}
	return boxes, nil
}

func isBlank(s string) bool { return strings.Trim(s, " \t") == "" }

// rawUTF8 reports whether an address in the header of Raw has a local part that is not ASCII.
func (m *EmailMessage) rawUTF8() bool {
	fields, _, _ := rawmessage.Split(m.Raw)
	return slices.ContainsFunc(fields, func(f rawmessage.Field) bool {
		if !headerfield.HoldsAddresses(f.Name) || charset.IsASCII(f.Text) {
			return false
		}
		utf8 := false
		for box, reason := range address.Found(f.UTF8()) {
			if reason != "" {
				return false
			}
			utf8 = utf8 || box.IsUTF8()
		}
		return utf8
	})
}

// WithRecipients returns a copy of the message that goes only to these recipients of its envelope,
// given as bare addresses. The copy renders to the same bytes as the message. A queue uses it to
// try refused recipients again.
func (m *EmailMessage) WithRecipients(to []string) *EmailMessage {
	c := *m
	c.only = append([]string{}, to...)
	return &c
}

// Redirect returns a copy of the message that goes to these recipients in place of its own, whatever WithRecipients has said
// before. They are its To; Cc, Bcc, and the To, Cc and Bcc of Headers are left out, so that an answer to all goes
// to none of those either. The header of Raw stays as it is.
func (m *EmailMessage) Redirect(to ...string) *EmailMessage {
	c := *m
	c.To, c.Cc, c.Bcc, c.only = slices.Clone(to), nil, nil, nil
	for name := range m.Headers {
		if strings.EqualFold(name, "To") || strings.EqualFold(name, "Cc") || address.IsBlindCopy(name) {
			c.Headers = maps.Clone(m.Headers)
			maps.DeleteFunc(c.Headers, func(name, _ string) bool {
				return strings.EqualFold(name, "To") || strings.EqualFold(name, "Cc") || address.IsBlindCopy(name)
			})
			break
		}
	}
	return &c
}

// OnlyTo returns the recipients that WithRecipients was given, or nil if the message goes to all
// its recipients.
func (m *EmailMessage) OnlyTo() []string { return slices.Clone(m.only) }

// narrowed drops the recipients that WithRecipients left out.
func (m *EmailMessage) narrowed(to []string) []string {
	if m.only == nil {
		return to
	}
	only := make(map[string]bool, len(m.only))
	for _, addr := range m.only {
		only[address.LowerDomain(addr)] = true
	}
	return slices.DeleteFunc(to, func(addr string) bool { return !only[address.LowerDomain(addr)] })
}
