package redact

import "strings"

// View shows texts and addresses to a reader who may see addresses in full, or must not. The
// zero value masks them.
type View struct{ Addresses bool }

// Text is a text of a message or a server for one line: see Text.
func (v View) Text(s string, limit int) string { return Text(s, limit, v.Addresses) }

// Reason is the reason why a message failed: see Reason.
func (v View) Reason(s string) string { return Reason(s, v.Addresses) }

// Address is an address as it stands in a message. A masked one loses its display name.
func (v View) Address(s string, limit int) string {
	if v.Addresses {
		return v.Text(s, limit)
	}
	return Cut(Address(s), limit)
}

// Mailbox is an address without its display name.
func (v View) Mailbox(s string) string {
	if !v.Addresses {
		return Address(s)
	}
	if at := strings.LastIndexByte(s, '<'); at >= 0 {
		s = strings.TrimRight(s[at+1:], "> ")
	}
	return Line(s)
}

// MaxMailboxes is how many recipients of a message are named. Beyond that there is their number.
const MaxMailboxes = 10

// Mailboxes is whom a message is for: the first of them, without their names.
func (v View) Mailboxes(recipients []string) []string {
	recipients = recipients[:min(len(recipients), MaxMailboxes)]
	shown := make([]string, len(recipients))
	for i, r := range recipients {
		shown[i] = v.Mailbox(r)
	}
	return shown
}
