package smtp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// handle is what each reply means. An error breaks the session.
func (s *session) handle(cmd command, r *reply) error {
	j := cmd.job
	switch cmd.verb {
	case verbReset:
		if !r.positive() {
			return refusal(mailer.StepReset, r)
		}
	case verbMail:
		if !r.positive() {
			return s.refused(j, mailer.StepMail, r)
		}
	case verbRcpt:
		return s.answerRcpt(j, cmd.rcpt, r)
	case verbData:
		return s.answerData(j, r)
	case verbChunk:
		return s.answerChunk(j, r)
	case verbEnd:
		if s.c.cfg.LMTP {
			return s.answerLMTP(j, r)
		}
		return s.answerEnd(j, r)
	case verbNothing:
		if r.code < 400 && r.code != 250 {
			return errOutOfStep
		}
	}
	return nil
}

// refused notes that the server refused the whole message. A reply that is neither
// success nor refusal, or says that our commands came in a bad order, means
// that we do not understand each other.
func (s *session) refused(j *job, step mailer.Step, r *reply) error {
	if j.err == nil {
		j.err = refusal(step, r)
	}
	if r.code < 400 || r.code == 503 {
		return errOutOfStep
	}
	return nil
}

func (s *session) answerRcpt(j *job, addr string, r *reply) error {
	switch {
	case j.err != nil:
		// MAIL was refused, so that this reply adds nothing.
	case r.positive(): // 250, 251, 252
		j.took = append(j.took, addr)
	case r.code < 400 || r.code == 503 || r.code == 421 && s.chunks:
		return s.refused(j, mailer.StepRcpt, r)
	case tooMany(r, len(j.took)):
		j.later = append(j.later, addr)
	default:
		j.refuse(addr, refusal(mailer.StepRcpt, r))
	}
	return nil
}

// tooMany says whether a recipient was refused for being one too many after the
// server has taken others: RFC 5321, 4.5.3.1.10, where 552 is the old form of 452
// and a server takes at least 100. X.2.Y is about the recipient's mailbox.
func tooMany(r *reply, taken int) bool {
	switch r.code {
	case 452:
		enhanced, _ := r.words()
		return taken > 0 && (len(enhanced) < 4 || enhanced[:4] != "4.2.")
	case 552:
		return taken >= 100
	}
	return false
}

// answerData decides whether the body may follow.
func (s *session) answerData(j *job, r *reply) error {
	switch {
	case r.code == 354 && j.err == nil:
		j.ready = true
	case r.code == 354:
		// MAIL was refused: whose transaction is this? The body, and even a lone
		// dot, would go out in the name of somebody else.
		return errOutOfStep
	case j.failed() && r.code >= 400:
		// "No valid recipients" in many words and codes.
	default:
		return s.refused(j, mailer.StepData, r)
	}
	return nil
}

// answerEnd is the verdict on the message. Only 250 is an acceptance.
func (s *session) answerEnd(j *job, r *reply) error {
	if !s.c.link.complete(j) {
		return s.early(j, r)
	}
	s.c.link.settle(j)
	switch {
	case j.err != nil && j.err.Code == 421 && r.code == 250:
		// It said that it is closing and went on. For whom it took the message, nobody knows.
		j.err = &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: j.err}
	case j.err != nil && j.err.Code == 421:
		return nil // not reported yet: a new connection may do better
	case r.code == 250 && j.err != nil:
		return errOutOfStep // accepted without MAIL: what did it accept?
	case r.code == 250 && !j.failed():
		j.accepted(r.String())
	case !j.failed():
		if err := s.refused(j, mailer.StepEnd, r); err != nil {
			return err
		}
	}
	s.settle(j, r)
	return nil
}

// early is a reply to a message that is not complete. It may refuse the message. It
// ends the connection, for the rest of the body would be read as commands.
func (s *session) early(j *job, r *reply) error {
	if r.code < 400 {
		return errOutOfStep
	}
	j.err = refusal(mailer.StepBody, r)
	if r.code != 421 {
		s.c.settled++
	}
	return j.err
}

// answerLMTP is the verdict for one recipient after the other (RFC 2033, 4.2).
func (s *session) answerLMTP(j *job, r *reply) error {
	if !s.c.link.complete(j) {
		return s.early(j, r)
	}
	addr := j.took[j.answered]
	switch {
	case r.code == 250:
		j.deliveredTo(addr, r.String())
	case r.code < 400:
		return s.refused(j, mailer.StepEnd, r)
	default:
		j.refuse(addr, refusal(mailer.StepEnd, r))
	}
	if j.answered++; j.answered < len(j.took) {
		return nil
	}
	s.c.link.settle(j)
	j.next()
	s.settle(j, r)
	return nil
}

// settle ends a job's transaction that the server has decided on.
func (s *session) settle(j *job, r *reply) {
	if r.code != 421 {
		s.c.settled++
	}
	s.end(j)
}

// end reports the job, or puts it back if another transaction must follow.
func (s *session) end(j *job) {
	s.begun = slices.DeleteFunc(s.begun, func(b *job) bool { return b == j })
	if j.err == nil && j.more {
		s.q.putBack(j)
		return
	}
	s.q.finish(j)
}

// abandon decides what becomes of the messages of a broken session, broken by us if
// interrupted. The writer has ended.
func (s *session) abandon(cause error, interrupted bool) {
	var again []*job
	for i, j := range s.begun {
		switch {
		case j.decided():
		case j.err == nil && s.c.link.inDoubt(j):
			j.err = &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: cause}
		case i == 0 && !interrupted && !s.blameless(j, cause):
			j.err = s.loss(cause)
		default:
			// Nothing of it can have been accepted: at once on a new connection.
			again = append(again, j)
			continue
		}
		s.q.finish(j)
	}
	s.begun = nil
	s.q.putBack(again...)
}

// blameless says whether the connection broke for a reason of its own, and not
// because of j, the first message without an answer: it had gone stale while idle, or
// it ended after other messages, as where a server takes so many and no more.
// Silence is another matter: the next connection could be as silent.
func (s *session) blameless(j *job, cause error) bool {
	switch {
	case s.unanswered() > 0 && s.pending[s.head].job != j:
		return true // it was the turn of another
	case s.c.reused && !s.heard, errors.Is(cause, errNoChunks):
		return true
	}
	return s.c.settled > 0 && !isTimeout(cause)
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
	if writing != nil && isTimeout(reading) && !errors.Is(writing, errHalted) {
		return fmt.Errorf("the server stopped reading: %w", writing)
	}
	return reading
}
