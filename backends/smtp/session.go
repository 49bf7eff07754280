package smtp

import (
	"context"
	"errors"
	"time"

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

// A command is one that was written, or is about to be, and not yet answered.
type command struct {
	verb verb
	job  *job
	rcpt string // of RCPT

	written time.Time // about when, for hooks: zero if nobody listens
}

// A session sends messages of a queue over a connection until the queue is empty
// or the connection is full or broken. It queues commands, which the writer
// writes, and reads the replies itself: replies come in the order of the commands,
// so that the first command unanswered is the one a reply belongs to. Whatever
// does not fit breaks the session. Results are reported before anything else is
// written, and before the session waits: however long the report takes, no more is
// in doubt meanwhile than what is on the wire already.
//
// The three ways to send differ only in when they wait: strictly, for every
// reply; pipelining, for the one to DATA; chunking, for room in a window.
type session struct {
	c      *conn
	q      *queue
	strict bool
	chunks bool
	way    Way

	group   *group    // queued, not yet handed to the writer
	line    []byte    // a command under construction
	pending []command // pending[head:] are not answered
	head    int
	begun   []*job // taken from the queue and neither reported nor put back, in order

	timed   bool      // hooks want to know how long steps take
	stamped int       // pending[:stamped] have their time
	last    time.Time // when the last reply was done with, or reported

	before  int   // conn.settled when the session began
	heard   bool  // any reply but 421 has come
	closing error // 421: nothing more is said
	parting error // 421 to RCPT, and nothing after it yet: the server is closing, or it does not want the recipient
}

// send runs a session. A nil error means that the connection is in order, and that
// the queue is empty or the connection full. Else the connection is of no more
// use, and each message begun has been reported, or is back in the queue. settled
// counts the messages that the server has decided on.
func (c *conn) send(ctx context.Context, q *queue, chunking bool) (settled int, err error) {
	s := c.newSession(q, chunking)
	stop := context.AfterFunc(ctx, c.link.halt)
	returned := false
	defer func() {
		if !returned { // a panic, over a message: nothing more is said on the connection
			stop()
			c.close(closeReason(errPanic, false), errPanic)
			_ = c.writer.stop()
		}
	}()
	err = s.run()
	returned = true
	if !stop() && err == nil {
		err = errHalted // or about to be
	}
	if err != nil {
		c.trace("*: ", "cut: "+err.Error())
		c.link.cut()
	}
	writing := c.writer.stop()
	if err != nil {
		reason := s.reason(err, writing)
		s.abandon(reason, ctx.Err() != nil)
		c.close(closeReason(reason, ctx.Err() != nil), reason)
	}
	c.used = time.Now()
	return c.settled - s.before, err
}

var errPanic = errors.New("a panic while sending")

// newSession begins a session with the buffers of the last one.
func (c *conn) newSession(q *queue, chunking bool) *session {
	s, last := &c.session, c.session
	*s = session{
		c: c, q: q, before: c.settled, timed: q.settled != nil,
		strict: c.cfg.Pipelining == Off || !c.ext.pipelining,
		group:  c.writer.group(), line: last.line, pending: last.pending[:0], begun: last.begun[:0],
	}
	s.chunks = chunking && c.ext.chunking && !s.strict && !c.cfg.LMTP
	switch {
	case s.strict:
		s.way = WayStrict
	case s.chunks:
		s.way = WayChunked
	default:
		s.way = WayPipelined
	}
	return s
}

func (s *session) run() error {
	if s.c.in.r.Buffered() > 0 {
		return errUnsolicited
	}
	send := s.pipeline
	if s.chunks {
		send = s.chunk
	}
	if err := send(); err != nil {
		return err
	}
	if s.c.in.r.Buffered() > 0 {
		return errUnsolicited // all messages are settled, but there is no trust left
	}
	return nil
}

// say queues a command. When strict, it waits for the reply.
func (s *session) say(cmd command, line string) error {
	s.line = append(s.line[:0], line...)
	return s.sayLine(cmd)
}

// sayLine queues the command in s.line.
func (s *session) sayLine(cmd command) error {
	if s.c.cfg.Trace != nil {
		s.c.trace("C: ", string(s.line))
	}
	s.group.bytes = append(append(s.group.bytes, s.line...), crlf...)
	s.pending = append(s.pending, cmd)
	if s.strict {
		return s.await()
	}
	return nil
}

// flush hands what is queued to the writer.
func (s *session) flush() {
	if len(s.group.bytes) == 0 {
		return
	}
	s.tell()
	s.stamp()
	// When chunking, a group may be written for each message in the window.
	s.c.writer.put(s.group, !s.chunks, s.c.cfg.Window+4)
	s.group = s.c.writer.group()
}

// unanswered is how many commands are.
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
	if s.c.link.finished() {
		return s.stopped()
	}
	if !s.c.in.ready() {
		s.tell()
	}
	cmd := s.pending[s.head]
	s.c.link.expect(s.limit(cmd))
	r, err := s.c.in.read()
	if err != nil {
		return s.c.lost(err)
	}
	s.count(cmd)
	if r.code == 421 {
		s.farewell(cmd, r)
	} else {
		s.heard, s.parting = true, nil
	}
	if err := s.handle(cmd, r); err != nil {
		return err
	}
	if s.timed {
		s.last = time.Now()
	}
	s.pop()
	if s.c.link.finished() {
		return s.stopped()
	}
	return nil
}

// farewell notes a 421, with which a server may say at any point that it is closing (RFC
// 5321, 3.8): nothing more is said then. Exim and others say it to a recipient too, and
// go on. Which of the two it is shows in what comes next. Only where messages are
// streamed is there no waiting for that: they would be in doubt if it is the end.
func (s *session) farewell(cmd command, r *reply) {
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
	s.c.link.halt()
}

// stays asks a server that has said 421 to a recipient of j whether it is still there.
func (s *session) stays(j *job) error {
	if s.parting == nil {
		return nil
	}
	s.c.unclean = false
	if err := s.say(command{verb: verbReset, job: j}, "RSET"); err != nil {
		return err
	}
	return s.await()
}

// tell reports what is known by now.
func (s *session) tell() {
	if s.q.tell() && s.timed {
		s.last = time.Now() // that may have taken a while
	}
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
		if cmd.job != nil && cmd.job.start.IsZero() {
			cmd.job.start = now
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
	if cmd.job != nil {
		*cmd.job.steps.of(cmd.verb) += now.Sub(from)
	}
}

// stopped is why the link was halted: the server is closing, or the context ended.
func (s *session) stopped() error {
	if s.closing != nil {
		return s.closing
	}
	return errHalted
}

func (s *session) limit(cmd command) time.Duration {
	if cmd.verb == verbEnd || cmd.verb == verbNothing {
		return s.c.cfg.DataTimeout
	}
	return s.c.cfg.CommandTimeout
}
