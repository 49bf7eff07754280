package smtpd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// reply is the last line of a reply: code, enhanced status code (RFC 3463) and text.
type reply string

// Replies that are the same wherever they are given.
const (
	replyOK         reply = "250 2.0.0 Ok"
	replySequence   reply = "503 5.5.1 Bad sequence of commands"
	replySyntax     reply = "501 5.5.4 Syntax error in parameters"
	replyEnding     reply = "421 4.3.2 The server is being stopped"
	replyTimeout    reply = "421 4.4.2 Timeout"
	replyBareEnd    reply = "550 5.5.2 A bare CR or LF: every line has to end with CRLF"
	replyTooBig     reply = "552 5.3.4 The message is too big"
	replyTooMuch    reply = "452 4.3.1 Too much mail is being received, try again later"
	replyLoop       reply = "554 5.4.6 The message goes round in circles: it has too many Received fields"
	replyNeedsLogin reply = "530 5.7.0 Authentication required"
	replyNeedsTLS   reply = "530 5.7.0 Must issue a STARTTLS command first"
)

// code is the reply's code.
func (r reply) code() int {
	code, _ := strconv.Atoi(string(r[:3]))
	return code
}

// accepts and refuses report whether something was accepted, or refused for good. A reply may be neither (4yz, 3yz).
func (r reply) accepts() bool { return r != "" && r[0] == '2' }
func (r reply) refuses() bool { return r != "" && r[0] == '5' }

// closes reports whether the connection is closed after the reply.
func (r reply) closes() bool {
	return strings.HasPrefix(string(r), "421 ") || strings.HasPrefix(string(r), "221 ")
}

// maxText is how long the text of a reply may be, so that the line has no more than 512 bytes (RFC 5321, 4.5.3.1.5).
const maxText = 480

// answer makes a reply of a text that may have anything in it: it stays one line of ASCII.
func answer(status, format string, args ...any) reply {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	return reply(status + " " + text[:min(len(text), maxText)])
}

// answerError is the reply to a message that was not handed over.
func answerError(err error) reply {
	var (
		notAllowed *intake.NotAllowedError
		rate       *intake.RateError
		used       *mailer.IdempotencyError
		dead       *mailer.DeadLetterError
		unknown    *mailer.UnknownMailerError
		tag        *mailer.TagError // there are too many with the key's
	)
	switch {
	case errors.As(err, &notAllowed):
		return answer("550 5.7.1", "%v", err)
	case errors.As(err, &rate):
		return answer("450 4.7.1", "Too many messages, try again in %v", rate.RetryAfter.Round(time.Second))
	case errors.As(err, &used), errors.As(err, &dead), errors.As(err, &unknown):
		return answer("554 5.6.0", "%v", err)
	case intake.IsFull(err):
		return "452 4.3.1 The queue is full, try again later"
	case mailer.IsBadInput(err), errors.As(err, &tag):
		return answer("550 5.6.0", "%v", err)
	}
	switch mailer.ClassOf(err) {
	case mailer.Unavailable:
		return "451 4.3.0 The queue cannot be reached, try again later"
	case mailer.Unknown:
		return "451 4.3.0 The queue has not answered: the message may have been queued"
	case mailer.Permanent:
		return answer("554 5.6.0", "%v", err)
	case mailer.Temporary:
	}
	return answer("451 4.3.0", "%v", err)
}
