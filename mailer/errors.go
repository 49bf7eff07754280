package mailer

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BadHeaderError is the error of a message with a control character (CR, LF, NUL, ...) in a place
// where it could add a header field or an SMTP command. Nothing was sent or queued.
type BadHeaderError struct {
	Field  string // the field at fault: "subject", "to[1]", "headers[X-Id]", "attachments[0].filename"
	Reason string // what is wrong with it, without its value
}

func (e *BadHeaderError) Error() string { return "bad header: " + e.Field + ": " + e.Reason }

// InvalidMessageError is the error of a message that cannot be rendered or addressed for any other
// reason than a control character. Nothing was sent or queued.
type InvalidMessageError struct {
	Field  string // as in BadHeaderError
	Reason string
}

func (e *InvalidMessageError) Error() string { return "invalid message: " + e.Field + ": " + e.Reason }

// IsBadInput reports whether err is about the message itself: it was refused before anything was
// sent, and its author has to change it. FailSilently does not silence such errors.
func IsBadInput(err error) bool {
	if _, ok := errors.AsType[*BadHeaderError](err); ok {
		return true
	}
	_, ok := errors.AsType[*InvalidMessageError](err)
	return ok
}

// Class is what a failure means for the message. It is decided once, from reply codes and from
// what had been written when the connection broke, never from texts.
type Class int

const (
	// Temporary means that the next hop refused the message for now (4yz): it can be tried
	// again later. Failures that fit no other class have this one.
	Temporary Class = iota
	// Permanent means that this message will never be accepted as it is (5yz).
	Permanent
	// Unavailable means that the next hop takes no mail at all: it cannot be
	// reached, its certificate or our password is wrong, or it asks us to wait
	// (421). It is not the message's fault and nothing was accepted.
	Unavailable
	// Unknown means that the connection was lost after the whole message had been
	// sent and before the reply, or that a queue was asked to take it and has not answered:
	// it may have been accepted.
	Unknown
)

func (c Class) String() string {
	switch c {
	case Temporary:
		return "temporary"
	case Permanent:
		return "permanent"
	case Unavailable:
		return "unavailable"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("class(%d)", int(c))
}

// Step is how far a message had come when it failed.
type Step string

// The steps of a conversation, in order.
const (
	StepRender  Step = "render" // before the next hop was asked
	StepPolicy  Step = "policy" // a rule of the sending side, before the next hop was asked
	StepConnect Step = "connect"
	StepGreet   Step = "greeting"
	StepHello   Step = "EHLO"
	StepTLS     Step = "TLS"
	StepAuth    Step = "AUTH"
	StepReset   Step = "RSET"
	StepMail    Step = "MAIL"
	StepRcpt    Step = "RCPT"
	StepData    Step = "DATA"
	StepBody    Step = "body"
	StepEnd     Step = "end of data" // the final dot, or BDAT LAST, has been sent
)

// SendError is why one message, or some of its recipients, was not accepted.
type SendError struct {
	Class     Class
	Step      Step
	Code      int    // the reply code, 0 if there was no reply
	Enhanced  string // the enhanced status code (RFC 3463) such as "5.1.1", or ""
	Text      string // the reply's text, one line
	Recipient string // in Refused: the address that was refused

	// Refused has an entry for each recipient that was refused. Accepted reports that the
	// message was accepted for the others.
	Refused  []*SendError
	Accepted bool

	// RetryAfter is how long the next hop wants to be left alone, from now on, as an HTTP service says it in Retry-After; 0 if
	// it has not said. A worker tries the message no earlier, and with an error of the class Unavailable it asks for none of
	// the mailer's mail earlier: at most 24 h and 1 h. In Refused it is of that recipient.
	RetryAfter time.Duration

	Err error // the cause, if it was not a reply
}

// Error says why, then where in the conversation, then whom it concerns: "550 5.1.1 User unknown (RCPT <ann@example.com>)".
// What was said to several recipients is there once. So the beginning is enough for a list, and the whole leaves nothing out.
func (e *SendError) Error() string {
	var b strings.Builder
	if len(e.Refused) == 0 || e.Text != "" || e.Err != nil {
		b.WriteString(e.own())
	}
	for _, g := range groupRefused(e.Refused) {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(g.text())
	}
	if e.Accepted {
		b.WriteString("; accepted for the others")
	}
	return b.String()
}

// own is the error without that of its recipients.
func (e *SendError) own() string {
	if e.Recipient == "" || strings.Contains(e.Text, e.Recipient) {
		return e.at(string(e.Step))
	}
	return e.at(string(e.Step) + " <" + e.Recipient + ">")
}

// at is own for what has happened there.
func (e *SendError) at(where string) string {
	switch { // a code without words is that of the cause
	case e.Err != nil && e.Text == "":
		return where + ": " + e.Err.Error()
	case e.Err != nil:
		return e.reply() + ": " + e.Err.Error() + " (" + where + ")"
	case e.Code == 0 && e.Text == "":
		return where
	}
	return e.reply() + " (" + where + ")"
}

// reply is the reply as the next hop gave it, in one line.
func (e *SendError) reply() string {
	parts := []string{strconv.Itoa(e.Code), e.Enhanced, e.Text}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" || s == "0" }), " ")
}

// refusedGroup are recipients who were refused with the same words, but for their own addresses in these.
type refusedGroup struct {
	first *SendError
	to    []string
}

func groupRefused(refused []*SendError) []*refusedGroup {
	var groups []*refusedGroup
	known := map[string]*refusedGroup{}
	for _, r := range refused {
		said := r.own()
		if r.Recipient != "" {
			said = strings.ReplaceAll(said, r.Recipient, "")
		}
		g := known[said]
		if g == nil {
			g = &refusedGroup{first: r}
			known[said], groups = g, append(groups, g)
		}
		g.to = append(g.to, "<"+r.Recipient+">")
	}
	return groups
}

func (g *refusedGroup) text() string {
	if len(g.to) == 1 {
		return g.first.own()
	}
	return g.first.at(string(g.first.Step) + " " + strings.Join(g.to, ", "))
}

// Unwrap returns the cause, if it was not a reply.
func (e *SendError) Unwrap() error { return e.Err }

// ClassOf returns the class of a message's error: that of the SendError in it, Permanent for bad
// input, and Temporary for any other error.
func ClassOf(err error) Class {
	if s, ok := errors.AsType[*SendError](err); ok {
		return s.Class
	}
	if IsBadInput(err) {
		return Permanent
	}
	return Temporary
}

// SendErrors has one entry for each message of a batch, in its order, nil where
// the message was accepted.
type SendErrors []error

func (e SendErrors) Error() string {
	failed := e.Unwrap()
	switch len(failed) {
	case 0:
		return "no errors"
	case 1:
		return failed[0].Error()
	}
	return fmt.Sprintf("%d of %d messages failed, the first with: %v", len(failed), len(e), failed[0])
}

// Unwrap returns the entries that are not nil, for errors.Is and errors.As.
func (e SendErrors) Unwrap() []error {
	var failed []error
	for _, err := range e {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// ErrorAt returns the error of the message at index i, given the error of SendMessages. An error
// that is not a SendErrors is the error of every message.
func ErrorAt(err error, i int) error {
	var each SendErrors
	if !errors.As(err, &each) {
		return err
	}
	if i < len(each) {
		return each[i]
	}
	return nil
}
