package smtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// Why a session ends though the connection has not broken.
var (
	errOutOfStep   = errors.New("the server's replies do not fit our commands")
	errUnsolicited = errors.New("the server speaks out of turn")
	errNoChunks    = errors.New("the server offers CHUNKING and does not know BDAT")
	errPanic       = errors.New("a panic while sending")
	errTakenBack   = errors.New("a message that the server was ready for is not to be sent any more")
)

// maxFruitless is how many connections in a row may break without the server having
// decided on a single message, before the rest of a batch is given up for now.
const maxFruitless = 3

// classify says what a reply that is no success means for the message. It is the
// only place that does, and it looks at codes alone. What an operator calls temporary comes on top
// (Config.TemporaryReplies).
//
// Where the enhanced status code contradicts a 5yz, the milder word counts: what the server calls temporary in
// either code is tried again. docs/design/delivery.md has the table.
func classify(step mailer.Step, code int, enhanced string) mailer.Class {
	switch {
	case beforeMail(step):
		return mailer.Unavailable // no message has been spoken of yet
	case step == mailer.StepRcpt && (code/100 == 4 || code/10 == 53):
		// Whatever it says, it says it of one recipient, whom a stranger may have
		// chosen: "454 4.7.1 Relay access denied" is Postfix's word for a foreign domain.
		return mailer.Temporary
	case code == 421, code == 432, code == 454:
		// The server wants less: it is closing, the user sends too much, or
		// it cannot authenticate us for now (RFC 5321, RFC 4954).
		return mailer.Unavailable
	case code == 530, code == 534, code == 535, code == 538:
		return mailer.Unavailable // it expects a login or TLS (RFC 4954, 6; RFC 3207, 4)
	case code == 503:
		return mailer.Temporary // "bad sequence": we are out of step, not the message
	case code/100 == 4:
		return mailer.Temporary
	case code == 521 && step == mailer.StepMail && (enhanced == "" || isDetail(enhanced, "3.2")):
		return mailer.Unavailable // the host takes no mail at all (RFC 7504, 3)
	case code/100 == 5 && isLimit(enhanced):
		return mailer.Unavailable // a limit on sending: the next message would be refused too
	case code/100 == 5 && isLater(enhanced), code == 552 && step == mailer.StepRcpt && enhanced == "":
		// Without a reason, 552 to a recipient is a full mailbox or the old form of 452 (RFC 5321, 4.5.3.1.10).
		return mailer.Temporary
	case code/100 == 5:
		return mailer.Permanent
	case step == mailer.StepEnd:
		return mailer.Unknown // no refusal, and no 250 either
	}
	return mailer.Temporary
}

// isLimit reports whether an enhanced status code says that the mail system is congested (RFC 3463, 3.5), which
// large providers say of a sender who has used up a daily limit.
func isLimit(enhanced string) bool { return isDetail(enhanced, "4.5") }

// isLater reports whether an enhanced status code says that a failure passes: by its class, or by a detail that
// RFC 3463 has for such failures alone. X.4.1 would be one of these, but Exchange Online says it of recipients
// who do not exist.
func isLater(enhanced string) bool {
	const (
		mailboxFull   = "2.2"
		systemFull    = "3.1"
		badConnection = "4.2"
		directory     = "4.3"
	)
	return strings.HasPrefix(enhanced, "4.") || slices.ContainsFunc([]string{mailboxFull, systemFull, badConnection, directory},
		func(detail string) bool { return isDetail(enhanced, detail) })
}

// isDetail reports whether an enhanced status code has that subject and detail, whatever its class.
func isDetail(enhanced, detail string) bool {
	_, of, _ := strings.Cut(enhanced, ".")
	return of == detail
}

func beforeMail(step mailer.Step) bool {
	switch step {
	case mailer.StepConnect, mailer.StepGreet, mailer.StepHello, mailer.StepTLS, mailer.StepAuth, mailer.StepReset:
		return true
	}
	return false
}

// classifyLoss says what it means for the message that the connection broke, or
// that no reply came in time, before the message was complete. Nothing was
// accepted. A message that regularly ends the connection must not be tried for
// ever, so that only silence before the body is laid to the server alone.
func classifyLoss(step mailer.Step, cause error) mailer.Class {
	if beforeMail(step) || transport.IsTimeout(cause) && step != mailer.StepBody {
		return mailer.Unavailable
	}
	return mailer.Temporary
}

// refusal is the error of a reply that is no success.
func refusal(step mailer.Step, r *transport.Reply) *mailer.SendError {
	enhanced, text := r.Words()
	return &mailer.SendError{Class: classify(step, r.Code, enhanced), Step: step, Code: r.Code, Enhanced: enhanced, Text: text}
}

// wantPositive turns what is no 2yz into the error of a step before MAIL.
func wantPositive(step mailer.Step, r *transport.Reply, err error) error {
	if err != nil {
		return unavailable(step, err)
	}
	if !r.Positive() {
		return refusal(step, r)
	}
	return nil
}

// unavailable is the error of a failure before any message was spoken of.
func unavailable(step mailer.Step, err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: err}
}

// givenUp is the error of messages that were not even begun when the last
// connection broke.
func givenUp(ctx context.Context, err error) *mailer.SendError {
	failure := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect}
	if cause := context.Cause(ctx); cause != nil {
		failure.Err = cause
		return failure
	}
	failure.Err = fmt.Errorf("%d connections in a row broke, the last one with: %w", maxFruitless, err)
	return failure
}

// asSendError returns the SendError that err is, or else makes it one.
func asSendError(err error) *mailer.SendError {
	var s *mailer.SendError
	if errors.As(err, &s) {
		return s
	}
	return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: err}
}
