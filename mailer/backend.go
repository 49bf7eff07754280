package mailer

import "context"

// Backend delivers messages, or hands them to something that will.
//
// "Accepted" always means the same thing: the next hop took responsibility for the
// message (RFC 5321, 4.2.5). For SMTP that is the server's 250 to the final dot,
// for a queue it is the reply of the store that keeps it.
//
// A Backend is used by one goroutine at a time; a program that wants several connections makes
// several backends. A Backend must not change a message, nor keep it after the call returns.
type Backend interface {
	// Open makes sure that a connection is open. opened reports whether this call opened it:
	// the caller that opened it has to close it.
	Open(ctx context.Context) (opened bool, err error)

	// Close ends the connection, if there is one. Closing a backend that is not
	// open, or whose connection has died, is not an error. It can be opened again.
	Close() error

	// SendMessages sends the messages over one connection. If none is open it
	// opens one, and closes it again afterwards; one that was open stays open.
	// With no messages, or none that has a recipient, it opens nothing.
	//
	// One message's failure never stops the others. A message without recipients
	// is not sent and is no failure. sent counts the messages that were accepted
	// for at least one recipient; err, if not nil, is a SendErrors with one entry
	// for each message, nil where it was accepted for all. A message is never
	// tried again by the backend itself once it may have been accepted.
	//
	// What a message lacks is filled in first (WithDefaults), and one that Validate
	// refuses fails with that error. If no connection can be opened, the error of
	// each message that was to be sent is of the class Unavailable. Once ctx is done
	// nothing is opened or sent any more: what is left fails.
	SendMessages(ctx context.Context, messages []*EmailMessage) (sent int, err error)
}

// Result is the fate of one message.
type Result struct {
	Reply   string       // the next hop's words on accepting it, such as "250 2.0.0 Ok: queued as 4C1D"
	TaskID  string       // what a queue knows the message by, for Cancel; empty if it does not wait in one
	Refused []*SendError // recipients refused though the message was accepted for others
	Skipped bool         // there was nobody to send it to
	Err     error        // nil if it was accepted or skipped

	// Connection names the connection that the message went over, or was to, for logs. It
	// is empty if there is none, or if the backend does not name it.
	Connection string
}

// Error returns the message's entry in a SendErrors: nil if it was accepted for every recipient,
// or skipped.
func (r Result) Error() error {
	if r.Err == nil && len(r.Refused) > 0 {
		return &SendError{Class: r.Refused[0].Class, Step: StepRcpt, Accepted: true, Refused: r.Refused}
	}
	return r.Err
}

// ContextErr returns a *SendError of the class Unavailable if ctx is done, else nil: it is not the
// message's fault that the time is up, and nothing was accepted.
func ContextErr(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &SendError{Class: Unavailable, Step: StepConnect, Err: err}
	}
	return nil
}
