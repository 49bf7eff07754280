package mailer

import (
	"cmp"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// Envelope is whom a message is sent from and to, as an SMTP server is told it:
// bare addresses, with internationalised domains in punycode.
type Envelope struct {
	From string   // "" is the null sender
	To   []string // each address once

	// UTF8 says that an address of the envelope or the header has a local part
	// that is not ASCII, so that the next hop must offer SMTPUTF8 (RFC 6531).
	UTF8 bool
}

// Recipients returns To, Cc, Bcc and the Bcc of Headers in that order as they
// were written, without empty entries and without repetitions.
func (m *EmailMessage) Recipients() []string {
	all := slices.Concat(m.To, m.Cc, m.Bcc)
	for _, name := range m.envelopeNames() {
		if !isBlindCopy(name) {
			continue
		}
		for entry := range splitAddresses(m.Headers[name]) {
			all = append(all, entry)
		}
	}
	return unique(slices.DeleteFunc(all, isBlank), func(s string) string { return s })
}

// unique drops the entries whose key an earlier one has.
func unique(list []string, key func(string) string) []string {
	if len(list) < 2 {
		return list
	}
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		k := key(s)
		found := seen[k]
		seen[k] = true
		return found
	})
}

// Envelope returns the message's envelope, which has no recipients from the header of Raw. The sender is FromEmail, one address
// only, or what a Return-Path in Headers says: a message by several authors has
// them in Headers["From"]. An error is a BadHeaderError or an InvalidMessageError.
func (m *EmailMessage) Envelope() (Envelope, error) {
	a, err := m.addresses()
	if err != nil {
		return Envelope{}, err
	}
	if a.sender == "" && !a.nullSender {
		return Envelope{}, &InvalidMessageError{Field: "from_email", Reason: "is empty"}
	}
	e := Envelope{From: a.sender, To: make([]string, 0, len(a.to)+len(a.cc)+len(a.bcc)), UTF8: a.utf8}
	for _, list := range [][]mailbox{a.to, a.cc, a.bcc} {
		for _, box := range list {
			e.To = append(e.To, box.addr)
		}
	}
	e.To = m.narrowed(unique(e.To, domainLower))
	return e, nil
}

// domainLower makes addresses that are the same equal: domains may be in any letter
// case, but of a local part only its own server knows (RFC 5321, 2.4).
func domainLower(addr string) string {
	at := strings.LastIndexByte(addr, '@') + 1
	return addr[:at] + strings.ToLower(addr[at:])
}

// addresses are a message's addresses, read.
type addresses struct {
	from    []mailbox // FromEmail: one, or none if it is empty
	to      []mailbox
	cc      []mailbox
	bcc     []mailbox // with the Bcc of Headers
	replyTo []mailbox

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
		a.sender = a.from[0].addr
	}
	for _, l := range []struct {
		field string
		list  []string
		boxes *[]mailbox
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
	for _, list := range [][]mailbox{a.from, a.to, a.cc, a.bcc, a.replyTo} {
		a.utf8 = a.utf8 || slices.ContainsFunc(list, mailbox.isUTF8)
	}
	a.utf8 = a.utf8 || !isASCII(a.sender) || m.rawUTF8()
	return a, nil
}

// envelopeNames returns the names in Headers that the envelope may depend on, sorted: there are
// few of them, however many others there are.
func (m *EmailMessage) envelopeNames() []string {
	var names []string
	for name := range m.Headers {
		if isBlindCopy(name) || strings.EqualFold(name, "Return-Path") || isAddressHeader(name) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(strings.Compare(textproto.CanonicalMIMEHeaderKey(a), textproto.CanonicalMIMEHeaderKey(b)), strings.Compare(a, b))
	})
	return names
}

func (b mailbox) isUTF8() bool { return !isASCII(b.addr) }

// addHeader takes over what a field of Headers says of the envelope.
func (a *addresses) addHeader(name, value string) error {
	switch {
	case isBlindCopy(name):
		_, _, reason := checkAddresses(value)
		if reason != "" || !isClean(value, withTab) {
			return fieldError(headerField(name), value, reason)
		}
		a.bcc = slices.AppendSeq(a.bcc, boxesOf(value))
	case strings.EqualFold(name, "Return-Path"):
		if isBlank(value) || strings.Trim(value, " \t") == "<>" {
			a.sender, a.nullSender = "", true
			return nil
		}
		boxes, err := readAddresses(headerField(name), value)
		if err != nil {
			return err
		}
		a.sender = boxes[0].addr
	case isAddressHeader(name):
		_, utf8, _ := checkAddresses(value) // what cannot be read is plain text
		a.utf8 = a.utf8 || utf8
	}
	return nil
}

// readAddresses reads the one address of a field.
func readAddresses(field, s string) ([]mailbox, error) {
	box, reason := parseMailbox(s)
	if reason != "" || !isClean(s, withoutTab) {
		return nil, fieldError(field, s, reason)
	}
	return []mailbox{box}, nil
}

// readAddressList reads a list of addresses and leaves out the empty entries.
func readAddressList(field string, list []string) ([]mailbox, error) {
	boxes := make([]mailbox, 0, len(list))
	for i, s := range list {
		if isBlank(s) {
			continue
		}
		box, reason := parseMailbox(s)
		if reason != "" || !isClean(s, withoutTab) {
			return nil, fieldError(field+"["+strconv.Itoa(i)+"]", s, reason)
		}
		boxes = append(boxes, box)
	}
	return boxes, nil
}

func isBlank(s string) bool { return strings.Trim(s, " \t") == "" }

func isBlindCopy(name string) bool {
	return strings.EqualFold(name, "Bcc") || strings.EqualFold(name, "Resent-Bcc")
}
