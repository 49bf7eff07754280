package smtp

import (
	"context"
	"errors"

	"github.com/mailpouch/mailpouch/mailer"
)

// TrySender asks the server whether it takes mail from a sender, who is written as in
// EmailMessage.FromEmail: it says MAIL and then RSET (RFC 5321, 4.1.1.2 and 4.1.1.5), so nothing is
// sent. Many servers want a login, and say so no earlier than there. What a server thinks of a
// recipient, or of the sender once there is a recipient, it does not tell. It connects if
// that is not done. The error is a SendError whose step is StepMail if the server refuses
// the sender, or an InvalidMessageError if there can be no such sender.
func (b *Backend) TrySender(ctx context.Context, from string) error {
	envelope, err := (&mailer.EmailMessage{FromEmail: from}).Envelope()
	if err != nil {
		return err
	}
	if !isPath(envelope.From) {
		return &mailer.InvalidMessageError{Field: "from_email", Reason: "the address does not fit in an SMTP command"}
	}
	c, err := b.awake(ctx)
	if err != nil {
		return err
	}
	var refused *mailer.SendError
	err = c.within(ctx, func() (err error) {
		refused, err = c.trySender(envelope.From)
		return err
	})
	switch {
	case err != nil:
		reason := err
		if s := asSendError(err); s.Code == 0 {
			reason = s.Err
		}
		c.close(closeReason(reason, ctx.Err() != nil), reason)
	case b.open:
		b.keep(c)
	default:
		c.quit(CloseDone)
	}
	if refused != nil { // whatever became of the connection then
		return refused
	}
	return err
}

// trySender returns the server's refusal, or an error if the connection is of no more use.
func (c *conn) trySender(from string) (refused *mailer.SendError, err error) {
	line := "MAIL FROM:<" + from + ">"
	if !isASCII([]byte(from)) {
		if !c.ext.smtpUTF8 {
			return &mailer.SendError{
				Class: mailer.Permanent, Step: mailer.StepMail, Err: errors.New("the sender needs SMTPUTF8, which the server does not offer"),
			}, nil
		}
		line += " SMTPUTF8" // RFC 6531, 3.4
	}
	r, err := c.do(line)
	switch {
	case err != nil:
		return nil, unavailable(mailer.StepMail, err)
	case r.code == 421: // it closes
		return nil, refusal(mailer.StepMail, r)
	case !r.positive():
		refused = refusal(mailer.StepMail, r)
	}
	r, err = c.do("RSET")
	return refused, wantPositive(mailer.StepReset, r, err)
}
