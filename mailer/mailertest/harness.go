package mailertest

import "github.com/mailpouch/mailpouch/mailer"

// Harness is a backend under test, with the means to see what it did and to make it fail. Only
// Backend is required. What depends on a nil field is not tested; the test's log names it.
type Harness struct {
	// Backend is new, not open, and used by this subtest only. It fills in what a message
	// lacks with the zero value of mailer.Defaults.
	Backend mailer.Backend

	// Received returns what has arrived at the next hop so far, in any order. It must have
	// everything that the backend was told is accepted.
	Received func() []Mail

	// NoEnvelope reports that Received does not know senders and recipients, because the
	// backend keeps the message without its envelope. They are then not compared.
	NoEnvelope bool

	// Text reports that the backend writes messages for people to read, by WriteText, and
	// not as they are sent.
	Text bool

	// Parts reports that the next hop takes the parts of a message and makes the bytes itself. Received then returns Mail with
	// Parts, and a finished message (Raw) has to fail as Permanent. The sender of the envelope is not compared.
	Parts bool

	// WholeBatch reports that the backend sends a batch of any size in one call, and so asks
	// Batch.Begin for all of its messages before it sends any. The tests then accept that.
	WholeBatch bool

	// Connections returns how many connections the backend has opened so far.
	Connections func() int

	// Break ends the open connection without the backend's knowledge.
	Break func()

	// Down makes the next hop unreachable from now on: a connection cannot be opened.
	Down func()

	// Refuses is an address that the next hop refuses, while it accepts the message for
	// other recipients, or "".
	Refuses string
}

// Mail is a message that has arrived.
type Mail struct {
	Envelope mailer.Envelope // for whom it was accepted. UTF8 is not compared

	// Data is the message (RFC 5322). Lines may end with CRLF or LF, and header
	// fields that a server puts before the message, such as Received, may be there.
	Data []byte

	// Parts are the message instead of Data, with Harness.Parts.
	Parts *Parts
}

// Parts are a message as an API has it that makes the bytes itself. Addresses may be with or without names, as in an
// EmailMessage.
type Parts struct {
	From    string
	To, Cc  []string // as they are shown. Who has got the message is in the Envelope
	ReplyTo []string
	Subject string
	Text    string // "" if there is none
	HTML    string // "" if there is none

	// Headers are those of the message that are not in another field. MessageID is "" if the API does not take one.
	Headers   map[string]string
	MessageID string

	Attachments []mailer.Attachment
}
