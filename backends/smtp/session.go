package smtp

import (
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// A verb is a command whose reply is awaited.
type verb int

const (
	verbReset verb = iota
	verbMail
	verbRcpt
	verbData
	verbChunk   // BDAT, not the last one of its message
	verbEnd     // the final dot, or BDAT LAST
	verbNothing // the final dot of a message that nobody is to get
)

// step is what the verb is called in an error.
func (v verb) step() mailer.Step {
	switch v {
	case verbReset:
		return mailer.StepReset
	case verbMail:
		return mailer.StepMail
	case verbRcpt:
		return mailer.StepRcpt
	case verbData:
		return mailer.StepData
	case verbChunk:
		return mailer.StepBody
	}
	return mailer.StepEnd
}

// of returns the step of st that the verb belongs to.
func (v verb) of(st *Steps) *time.Duration {
	switch v {
	case verbReset:
		return &st.Reset
	case verbMail:
		return &st.Mail
	case verbRcpt:
		return &st.Rcpt
	case verbData:
		return &st.Data
	case verbChunk, verbEnd, verbNothing:
	}
	return &st.End
}

// A command is one that was written, or is about to be, and not yet answered.
type command struct {
	verb    verb
	message *message
	rcpt    string // of RCPT

	written time.Time // about when, for hooks: zero if nobody listens
}

// A session sends messages of a batch over a connection until the batch is empty
// or the connection is full or broken. This file is its core: commands go out, and each
// reply finds its command. pipeline.go decides what is sent and when to wait, verdict.go
// what a reply means.
//
//	          send ->  |MAIL b|RCPT b|DATA b|   buffer: queued, not handed to the writer
//	                   |
//	|end a|MAIL b|RCPT b|DATA b|                pending: not answered, in order
//	   ^
//	 head: the next reply belongs to this one
//
// Replies come in the order of the commands (RFC 2920, 3.1), so that no reply needs a name:
// it belongs to the first command without an answer. Whatever does not fit breaks
// the session, because from then on each reply would be taken for another's, and
// a message could be reported as sent that was refused.
//
// Results are reported before anything else is written, and before the session waits. A
// report may take long, and whoever gets it may die meanwhile: no more is in doubt then than
// what was on the wire before.
//
// The three ways to send differ only in when they wait: strictly, for every
// reply; pipelining, for the one to DATA; chunking, for room in a window.
type session struct {
	c      *conn
	batch  *batch
	strict bool
	chunks bool
	way    Way
	answer func(command, *transport.Reply) error // what a reply means; an error breaks the session

	buffer  *transport.Buffer // queued, not yet handed to the writer
	line    []byte            // a command under construction
	pending []command         // pending[head:] are not answered
	head    int
	begun   []*message // taken from the batch and neither reported nor put back, in order

	timed   bool      // hooks want to know how long steps take
	stamped int       // pending[:stamped] have their time
	last    time.Time // when the last reply was done with, or reported

	heard   bool  // any reply but 421 has come
	closing error // 421: nothing more is said
	parting error // 421 to RCPT, and nothing after it yet: the server is closing, or it does not want the recipient
}

// send queues a command. When strict, it waits for the reply.
func (s *session) send(cmd command, line string) error {
	s.line = append(s.line[:0], line...)
	return s.sendLine(cmd)
}

// sendLine queues the command in s.line.
func (s *session) sendLine(cmd command) error {
	if s.c.cfg.Trace != nil {
		s.c.trace("C: ", string(s.line))
	}
	s.buffer.AddLine(s.line)
	s.pending = append(s.pending, cmd)
	if s.strict {
		return s.await()
	}
	return nil
}

// flush hands what is queued to the writer.
func (s *session) flush() {
	if s.buffer.IsEmpty() {
		return
	}
	s.report()
	s.stamp()
	// When chunking, a buffer may be written for each message in the window.
	s.c.writer.Put(s.buffer, !s.chunks, s.c.cfg.Window+4)
	s.buffer = s.c.writer.Buffer()
}

// unanswered is how many commands have no reply yet.
func (s *session) unanswered() int { return len(s.pending) - s.head }

// await reads replies until every command is answered.
func (s *session) await() error {
	s.flush()
	for s.unanswered() > 0 {
		if err := s.next(); err != nil {
			return err
		}
	}
	return nil
}

// next reads one reply and gives it to its command.
func (s *session) next() error {
	if s.c.link.Finished() {
		return s.stopped()
	}
	if !s.c.replies.Ready() {
		s.report()
	}
	cmd := s.pending[s.head]
	s.c.link.Expect(s.limit(cmd))
	r, err := s.c.replies.Read()
	if err != nil {
		return s.c.lost(err)
	}
	s.count(cmd)
	if err := s.answer(cmd, r); err != nil {
		return err
	}
	if s.timed {
		s.last = time.Now()
	}
	s.pop()
	if s.c.link.Finished() {
		return s.stopped()
	}
	return nil
}

// report reports what is known by now.
func (s *session) report() {
	if s.batch.report() && s.timed {
		s.last = time.Now() // that may have taken a while
	}
}

// commit asks whether m, whose body is next, may be accepted, after all that is known was reported. If not the message
// has ended. Asking may take a while, of which the server knows nothing.
func (s *session) commit(m *message) bool {
	s.report()
	err := s.batch.commit(m)
	if s.timed {
		s.last = time.Now()
	}
	if err == nil {
		return true
	}
	s.begun = slices.DeleteFunc(s.begun, func(b *message) bool { return b == m })
	s.c.settled++ // it did not fail for the connection's sake
	s.batch.end(m, mailer.Result{Err: err, Connection: m.connection()})
	return false
}

func (s *session) pop() {
	s.pending[s.head] = command{}
	s.head++
	switch {
	case s.head == len(s.pending):
		s.pending, s.head, s.stamped = s.pending[:0], 0, 0
	case s.head >= 1024:
		s.stamped -= s.head
		s.pending, s.head = s.pending[:copy(s.pending, s.pending[s.head:])], 0
	}
}

// stamp notes when the commands queued since the last time were handed over.
func (s *session) stamp() {
	if !s.timed {
		return
	}
	now := time.Now()
	for ; s.stamped < len(s.pending); s.stamped++ {
		cmd := &s.pending[s.stamped]
		cmd.written = now
		if cmd.message != nil && cmd.message.start.IsZero() {
			cmd.message.start = now
		}
	}
}

// count adds the time that the reply to cmd was waited for to those of its message.
func (s *session) count(cmd command) {
	if !s.timed {
		return
	}
	now, from := time.Now(), cmd.written
	if s.last.After(from) {
		from = s.last
	}
	if cmd.message != nil {
		*cmd.verb.of(&cmd.message.steps) += now.Sub(from)
	}
}

// stopped is why the link was halted: the server is closing, or the context ended.
func (s *session) stopped() error {
	if s.closing != nil {
		return s.closing
	}
	return transport.ErrStopped
}

func (s *session) limit(cmd command) time.Duration {
	if cmd.verb == verbEnd || cmd.verb == verbNothing {
		return s.c.cfg.DataTimeout
	}
	return s.c.cfg.CommandTimeout
}
