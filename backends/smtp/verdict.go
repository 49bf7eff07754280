package smtp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// handle is what each reply means. An error breaks the session.
//
// A reply to MAIL or RCPT decides on what it is about; what comes to DATA when all
// recipients were refused adds nothing. Only the reply to the end of the message can accept
// it, and only if its Point says that there was an end: a 250 which comes before belongs to
// nothing that we know.
func (s *session) handle(cmd command, r *transport.Reply) error {
	if r.Code == 421 {
		s.noteClosing(cmd, r)
	} else {
		s.heard, s.parting = true, nil
	}
	m := cmd.message
	switch cmd.verb {
	case verbReset:
		if !r.Positive() {
			return refusal(mailer.StepReset, r)
		}
	case verbMail:
		if !r.Positive() {
			return s.refused(m, mailer.StepMail, r)
		}
	case verbRcpt:
		return s.answerRcpt(m, cmd.rcpt, r)
	case verbData:
		return s.answerData(m, r)
	case verbChunk:
		return s.answerChunk(m, r)
	case verbEnd:
		if s.c.cfg.LMTP {
			return s.answerLMTP(m, r)
		}
		return s.answerEnd(m, r)
	case verbNothing:
		if r.Code < 400 && r.Code != 250 {
			return errOutOfStep
		}
	}
	return nil
}

// noteClosing notes a 421, with which a server may say at any point that it is closing (RFC
// 5321, 3.8): nothing more is said then. Exim and others say it to a recipient too, and
// go on. Which of the two it is shows in what comes next. Only where messages are
// streamed is there no waiting for that: they would be in doubt if it is the end.
func (s *session) noteClosing(cmd command, r *transport.Reply) {
	if s.closing != nil || s.parting != nil {
		return
	}
	e := refusal(cmd.verb.step(), r)
	e.Class = mailer.Unavailable
	if cmd.verb == verbRcpt && !s.chunks {
		s.parting = e
		return
	}
	s.closing = e
	s.c.link.Halt()
}

// refused notes that the server refused the whole message. A reply that is neither
// success nor refusal, or says that our commands came in a bad order, means
// that we do not understand each other.
func (s *session) refused(m *message, step mailer.Step, r *transport.Reply) error {
	if m.err == nil {
		m.err = s.refusal(step, r)
	}
	if r.Code < 400 || r.Code == 503 {
		return errOutOfStep
	}
	return nil
}

// refusal is what a reply that is no success means, with what the operator says of such replies. He has a limit
// on sending in mind: it is that of the server, which would refuse the next message too.
func (s *session) refusal(step mailer.Step, r *transport.Reply) *mailer.SendError {
	e := refusal(step, r)
	if (e.Class == mailer.Permanent || e.Class == mailer.Temporary) && s.c.isTemporary(r.Code, e.Enhanced, e.Text) {
		e.Class = mailer.Unavailable
	}
	return e
}

func (s *session) answerRcpt(m *message, addr string, r *transport.Reply) error {
	switch {
	case m.err != nil:
		// MAIL was refused, so that this reply adds nothing.
	case r.Positive(): // 250, 251, 252
		m.took = append(m.took, addr)
	case r.Code < 400 || r.Code == 503 || r.Code == 421 && s.chunks:
		return s.refused(m, mailer.StepRcpt, r)
	case tooMany(r, len(m.took)):
		m.later = append(m.later, addr)
	default:
		m.refuse(addr, s.refusal(mailer.StepRcpt, r))
	}
	return nil
}

// tooMany reports whether a recipient was refused for being one too many after the
// server has taken others: RFC 5321, 4.5.3.1.10, where 552 is the old form of 452
// and a server takes at least 100. X.5.3 says so whatever the code (RFC 3463, 3.6), and X.2.Y is about the
// recipient's mailbox.
func tooMany(r *transport.Reply, taken int) bool {
	enhanced, _ := r.Words()
	switch {
	case taken == 0 || r.Code < 400:
		return false
	case isDetail(enhanced, "5.3"):
		return true
	case r.Code == 452:
		return !strings.HasPrefix(enhanced, "4.2.")
	case r.Code == 552:
		return taken >= 100 && !strings.Contains(enhanced, ".2.")
	}
	return false
}

// answerData decides whether the body may follow.
func (s *session) answerData(m *message, r *transport.Reply) error {
	const challenge = 334                                  // of AUTH
	intermediate := r.Code/100 == 3 && r.Code != challenge // 354; of another one the first digit counts (RFC 5321, 4.2)
	switch {
	case intermediate && m.err == nil:
		m.ready = true
	case intermediate:
		// MAIL was refused: whose transaction is this? The body, and even a lone
		// dot, would go out in the name of somebody else.
		return errOutOfStep
	case m.failed() && r.Code >= 400:
		// "No valid recipients" in many words and codes.
	default:
		return s.refused(m, mailer.StepData, r)
	}
	return nil
}

// answerEnd is the verdict on the message.
func (s *session) answerEnd(m *message, r *transport.Reply) error {
	if !s.c.link.AwaitWritten(&m.point) {
		return s.early(m, r)
	}
	s.c.link.Answered(&m.point)
	switch {
	case m.err != nil && m.err.Code == 421 && isAcceptance(r):
		// It said that it is closing and went on. For whom it took the message, nobody knows.
		m.err = &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: m.err}
	case m.err != nil && m.err.Code == 421:
		return nil // not reported yet: a new connection may do better
	case isAcceptance(r) && m.err != nil:
		return errOutOfStep // accepted without MAIL: what did it accept?
	case isAcceptance(r) && !m.failed():
		m.accepted(r.String())
	case !m.failed():
		if err := s.refused(m, mailer.StepEnd, r); err != nil {
			return err
		}
	}
	s.settle(m, r)
	return nil
}

// isAcceptance reports whether a reply accepts a message. 250 does, and others that speak of the mail system (x5z) or of nothing
// (x0z): who sends again what was accepted does so at each try. A greeting, a farewell, help or the end of a login (x1z to x4z) is an
// answer to something else (RFC 5321, 4.2.1).
func isAcceptance(r *transport.Reply) bool {
	about := r.Code / 10 % 10
	return r.Positive() && (about == 5 || about == 0)
}

// early is a reply to a message that is not complete. It may refuse the message. It
// ends the connection, for the rest of the body would be read as commands.
func (s *session) early(m *message, r *transport.Reply) error {
	if r.Code < 400 {
		return errOutOfStep
	}
	m.err = s.refusal(mailer.StepBody, r)
	if r.Code != 421 {
		s.c.settled++
	}
	return m.err
}

// answerLMTP is the verdict for one recipient after the other (RFC 2033, 4.2).
func (s *session) answerLMTP(m *message, r *transport.Reply) error {
	if !s.c.link.AwaitWritten(&m.point) {
		return s.early(m, r)
	}
	addr := m.took[m.answered]
	switch {
	case isAcceptance(r):
		m.deliveredTo(addr, r.String())
	case r.Code < 400:
		return s.refused(m, mailer.StepEnd, r)
	default:
		m.refuse(addr, s.refusal(mailer.StepEnd, r))
	}
	if m.answered++; m.answered < len(m.took) {
		return nil
	}
	s.c.link.Answered(&m.point)
	m.next()
	s.settle(m, r)
	return nil
}

// answerChunk is the reply to the probe.
func (s *session) answerChunk(m *message, r *transport.Reply) error {
	if isAcceptance(r) {
		return nil
	}
	m.ready = false
	if slices.Contains([]int{500, 502, 503, 504, 521}, r.Code) {
		return errNoChunks
	}
	return s.refused(m, mailer.StepBody, r)
}

// dismiss ends a message that the server has refused before the body.
func (s *session) dismiss(m *message) {
	s.c.unclean = true
	s.c.settled++
	s.end(m)
}

// settle ends a message's transaction that the server has decided on.
func (s *session) settle(m *message, r *transport.Reply) {
	if r.Code != 421 {
		s.c.settled++
	}
	s.end(m)
}

// end reports the message, or puts it back if another transaction must follow.
func (s *session) end(m *message) {
	s.begun = slices.DeleteFunc(s.begun, func(b *message) bool { return b == m })
	if m.err == nil && m.more {
		s.batch.putBack(m)
		return
	}
	s.batch.finish(m)
}

// abandon decides what becomes of the messages of a broken session, broken by us if
// interrupted. The writer has ended, so that no point of no return is passed any more.
//
//	the server has decided on it                    that is its result
//	past the point of no return, and no answer      Unknown: it may have been accepted
//	the first without an answer, and may be why     its failure, so that it is not tried for ever
//	any other                                       back into the batch, for a new connection
func (s *session) abandon(cause error, interrupted bool) {
	var again []*message
	for i, m := range s.begun {
		switch {
		case m.decided():
		case m.err == nil && s.c.link.InDoubt(&m.point):
			m.err = &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: cause}
		case i == 0 && !interrupted && !s.blameless(m, cause):
			m.err = s.loss(cause)
		default:
			// Nothing of it can have been accepted: at once on a new connection.
			again = append(again, m)
			continue
		}
		s.batch.finish(m)
	}
	s.begun = nil
	s.batch.putBack(again...)
}

// blameless reports whether the connection broke for a reason of its own, and not
// because of m, the first message without an answer: it had gone stale while idle, or
// it ended after other messages, as where a server takes so many and no more.
// Silence is another matter: the next connection could be as silent.
func (s *session) blameless(m *message, cause error) bool {
	switch {
	case s.unanswered() > 0 && s.pending[s.head].message != m:
		return true // it was the turn of another
	case s.c.reused && !s.heard, errors.Is(cause, errNoChunks):
		return true
	}
	return s.c.settled > 0 && !transport.IsTimeout(cause)
}

// loss is the error of the message whose turn it was when the connection broke.
func (s *session) loss(cause error) *mailer.SendError {
	var refused *mailer.SendError
	if errors.As(cause, &refused) {
		failure := *refused
		return &failure
	}
	step := mailer.StepBody
	if s.unanswered() > 0 && s.pending[s.head].verb < verbChunk {
		step = s.pending[s.head].verb.step()
	}
	return &mailer.SendError{Class: classifyLoss(step, cause), Step: step, Err: cause}
}

// reason is the most telling of the causes of a broken session.
func (s *session) reason(reading, writing error) error {
	if reason := cmp.Or(s.closing, s.parting); reason != nil {
		return reason
	}
	if writing != nil && transport.IsTimeout(reading) && !errors.Is(writing, transport.ErrStopped) {
		return fmt.Errorf("the server stopped reading: %w", writing)
	}
	return reading
}
