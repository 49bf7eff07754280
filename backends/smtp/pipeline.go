package smtp

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
)

// run runs a session. A nil error means that the connection is in order, and that
// the batch is empty or the connection full. Else the connection is of no more
// use, and each message begun has been reported, or is back in the batch. settled
// counts the messages that the server has decided on.
func (s *session) run(ctx context.Context, c *conn, b *batch, chunking bool) (settled int, err error) {
	before := c.settled
	s.begin(c, b, chunking)
	stop := context.AfterFunc(ctx, c.link.Halt)
	returned := false
	defer func() {
		if !returned { // a panic, over a message: nothing more is said on the connection
			stop()
			c.abort(errPanic, false)
			_ = c.writer.Stop()
		}
	}()
	err = s.sendAll()
	returned = true
	if !stop() && err == nil {
		err = transport.ErrStopped // or about to be
	}
	if err != nil {
		c.trace("*: ", "cut: "+err.Error())
		c.link.Cut()
	}
	writing := c.writer.Stop()
	if err != nil {
		reason := s.reason(err, writing)
		s.abandon(reason, ctx.Err() != nil)
		c.abort(reason, ctx.Err() != nil)
	}
	c.used = time.Now()
	c.writer.Keep(s.buffer)
	s.c, s.batch, s.buffer = nil, nil, nil
	return c.settled - before, err
}

// begin begins a session with the buffers of the last one.
func (s *session) begin(c *conn, b *batch, chunking bool) {
	last := *s
	*s = session{
		c: c, batch: b, timed: b.settled != nil, answer: last.answer,
		strict: c.cfg.Pipelining == Off || !c.ext.pipelining,
		buffer: c.writer.Buffer(), line: last.line, pending: last.pending[:0], begun: last.begun[:0],
	}
	if s.answer == nil {
		s.answer = s.handle
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
}

func (s *session) sendAll() error {
	if s.c.replies.Buffered() > 0 {
		return errUnsolicited
	}
	send := s.pipeline
	if s.chunks {
		send = s.chunk
	}
	if err := s.each(send); err != nil {
		return err
	}
	if s.c.replies.Buffered() > 0 {
		return errUnsolicited // all messages are settled, but there is no trust left
	}
	return nil
}

// each sends one message after the other, until all are answered and none is left.
func (s *session) each(send func(*message) error) error {
	for {
		m, err := s.take()
		switch {
		case err != nil:
			return err
		case m != nil:
			err = send(m)
		case s.unanswered() == 0:
			return nil
		default:
			err = s.await() // the last reply may bring back a message that needs another transaction
		}
		if err != nil {
			return err
		}
	}
}

// pipeline sends a message. Where the server offers PIPELINING (RFC
// 2920) the body of one goes out together with the envelope of the next, so that
// each message takes one round trip:
//
//	client                               server              in doubt then
//
//	MAIL a, RCPT a, DATA       ------>
//	                           <------   250, 250, 354       nothing
//	body of a, dot,
//	MAIL b, RCPT b, DATA       ------>                       a
//	                           <------   250 for a,
//	                                     250, 250, 354       nothing
//	body of b, dot,
//	MAIL c, RCPT c, DATA       ------>                       b
//
// The reply to DATA is always waited for. A server that refuses DATA would read a body sent
// with it as commands, and a stranger may have written that body. It also keeps the doubt
// small: if the connection breaks, one message may have been accepted without our knowing,
// and the envelope behind it has cost nothing.
//
// Whether a message may be accepted is asked right before its body, when it is known what became of the one before. If
// it may not, the server, which is ready for the body, can only be left.
//
// Behind a big body nothing is sent until it is answered: a slow server takes long to read it, and what has not
// begun yet may go over another connection.
//
// A strict session waits for each reply instead, and asks before DATA too, and is otherwise the same.
func (s *session) pipeline(m *message) error {
	if left, err := s.envelope(m); err != nil || !left {
		return err
	}
	return s.content(m)
}

// take takes the next message that may be sent and that the server can be given, unless
// the connection has carried enough. Between the question whether it may be sent and its
// MAIL nothing is waited for, but the reply to RSET if the session is strict.
func (s *session) take() (*message, error) {
	for !s.c.full() {
		if s.chunks {
			if err := s.room(); err != nil {
				return nil, err
			}
		}
		m := s.batch.take()
		if m == nil {
			return nil, nil
		}
		if !s.batch.admit(m) || s.chunks && !s.commit(m) {
			continue
		}
		m.begin(s.c.about)
		m.way = s.way
		if m.err = m.refuseUnfit(&s.c.ext); m.err == nil {
			s.begun = append(s.begun, m)
			m.asked = max(m.asked, len(m.to))
			s.c.messages++
			return m, nil
		}
		s.batch.finish(m)
	}
	return nil, nil
}

// envelope says MAIL, RCPT and DATA and waits for the replies, those to what was
// queued before included. left is false if the message has ended with that.
func (s *session) envelope(m *message) (left bool, err error) {
	if err := s.recipients(m, s.c.unclean); err != nil {
		return true, err
	}
	if s.strict && m.failed() {
		return true, nil
	}
	if s.strict && !s.commit(m) {
		s.c.unclean = true
		return false, nil
	}
	if err := s.send(command{verb: verbData, message: m}, "DATA"); err != nil {
		return true, err
	}
	s.flush()
	s.batch.peek() // renders the next message while the server is busy
	return true, s.await()
}

// recipients says MAIL and RCPT. After a transaction that was broken off it says RSET
// first: Postfix refuses MAIL then, and would take what follows for a message of
// the sender before.
func (s *session) recipients(m *message, reset bool) error {
	if reset {
		if err := s.send(command{verb: verbReset, message: m}, "RSET"); err != nil {
			return err
		}
		s.c.unclean = false
	}
	if err := s.sendMail(m); err != nil {
		return err
	}
	for _, addr := range m.to {
		if m.err != nil {
			return nil // strict, and MAIL was refused
		}
		if err := s.sendRcpt(m, addr); err != nil {
			return err
		}
	}
	return nil
}

// content sends the body if the server is ready for it and somebody is to get it.
func (s *session) content(m *message) error {
	switch {
	case !m.ready:
		if err := s.askAlive(m); err != nil {
			return err
		}
		s.dismiss(m)
		return nil
	case m.failed() && s.c.cfg.LMTP:
		return errOutOfStep // RFC 2033, 4.2: no recipients, no 354
	case m.failed():
		// 354 though every recipient was refused: a lone dot ends it (RFC 2920, 3.1),
		// and what the server says to that changes nothing.
		s.dismiss(m)
		return s.sendEnd(command{verb: verbNothing}, 1)
	}
	if !s.commit(m) {
		return errTakenBack
	}
	if s.c.replies.Buffered() > 0 { // an answer to a message that has not been written
		s.pending = append(s.pending, command{verb: verbEnd, message: m})
		return s.next()
	}
	s.buffer.AddBody(m.body)
	s.c.octets += int64(len(m.body))
	s.traceBody(m.body)
	replies := 1
	if s.c.cfg.LMTP {
		replies = len(m.took)
	}
	return s.sendEnd(command{verb: verbEnd, message: m}, replies)
}

// askAlive asks a server that has said 421 to a recipient of m whether it is still there.
func (s *session) askAlive(m *message) error {
	if s.parting == nil {
		return nil
	}
	s.c.unclean = false
	if err := s.send(command{verb: verbReset, message: m}, "RSET"); err != nil {
		return err
	}
	return s.await()
}

// sendEnd queues the final dot. Behind it, the message is complete, if somebody is to get it.
func (s *session) sendEnd(cmd command, replies int) error {
	if cmd.message == nil {
		s.buffer.AddDot()
	} else {
		s.buffer.AddEnd(&cmd.message.point, len(cmd.message.body))
	}
	for range replies {
		s.pending = append(s.pending, cmd)
	}
	if s.strict {
		return s.await()
	}
	if cmd.message != nil && isBig(cmd.message) {
		s.flush()
		s.batch.peek() // renders the next message meanwhile
		return s.await()
	}
	return nil
}

// isBig reports whether a message is sent with nothing behind it: what one more round trip takes is little beside what
// its body does.
func isBig(m *message) bool { return m.size > 1<<20 }

func (s *session) traceBody(body []byte) {
	if s.c.cfg.Trace != nil {
		s.c.trace("C: ", fmt.Sprintf("(message of %d octets)", len(body)))
	}
}

// sendMail says MAIL with the parameters that the server offers and the message needs.
func (s *session) sendMail(m *message) error {
	ext, line := &s.c.ext, appendPath(append(s.line[:0], "MAIL FROM:"...), m.from)
	if ext.sized {
		line = strconv.AppendInt(append(line, " SIZE="...), int64(len(m.body)), 10) // RFC 1870, 5
	}
	if m.eightBit && ext.allBytes {
		line = append(line, " BODY=8BITMIME"...) // RFC 6152, 3
	}
	if ext.smtpUTF8 && m.needsUTF8() {
		line = append(line, " SMTPUTF8"...) // RFC 6531, 3.4
	}
	if ext.dsn {
		line = s.c.cfg.DSN.appendMail(line, m.id)
	}
	s.line = line
	return s.sendLine(command{verb: verbMail, message: m})
}

func (s *session) sendRcpt(m *message, addr string) error {
	line := appendPath(append(s.line[:0], "RCPT TO:"...), addr)
	if s.c.ext.dsn && s.c.cfg.DSN.Notify != "" {
		line = append(append(line, " NOTIFY="...), s.c.cfg.DSN.Notify...) // RFC 3461, 4.1
	}
	s.line = line
	return s.sendLine(command{verb: verbRcpt, message: m, rcpt: addr})
}

// appendPath appends an address in angle brackets. A local part with a dot that is not between two atoms, as some providers
// have given out, needs quotes here (RFC 5321, 4.1.2): strict servers refuse it without them.
func appendPath(line []byte, addr string) []byte {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		at = len(addr)
	}
	line = append(line, '<')
	if local := addr[:at]; strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") && local[0] != '"' {
		line = append(append(append(line, '"'), local...), '"')
		addr = addr[at:]
	}
	return append(append(line, addr...), '>')
}

// appendMail appends RET and ENVID (RFC 3461, 4.3 and 4.4).
func (d DSN) appendMail(line []byte, id string) []byte {
	if d == (DSN{}) {
		return line
	}
	if d.Return != "" {
		line = append(append(line, " RET="...), d.Return...)
	}
	if id = xtext(id); id != "" && len(id) <= 100 {
		line = append(append(line, " ENVID="...), id...)
	}
	return line
}

// xtext is RFC 3461, 4.
func xtext(s string) string {
	var b []byte
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			b = fmt.Appendf(b, "+%02X", c)
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// chunk streams a message with BDAT (RFC 3030) and lets up to a window of them be
// unanswered. BDAT says how long the body is, so that the server can step over one that it
// refuses, and nothing has to be waited for:
//
//	client   RSET MAIL a RCPT a BDAT n LAST <a> RSET MAIL b RCPT b BDAT n LAST <b> ...
//	server              250  250  250  250        250  250 ...
//	                                    |
//	                                    a is settled, and there is room for one more
//
// All that was sent to its end and is not answered is in doubt if the connection breaks,
// which is the price of it. Whether a message may be accepted is asked before it is queued.
//
// RSET comes before each, for the state after a refused BDAT is
// indeterminate (RFC 3030, 2), and a reply to it could come too late.
func (s *session) chunk(m *message) error {
	if !s.c.chunks || !s.heard && !s.c.isFresh() {
		return s.probe(m)
	}
	return s.stream(m)
}

// room waits until there is room in the window for the next message, whichever that is by
// then: one that must be sent once more comes first.
func (s *session) room() error {
	for {
		m := s.batch.peek()
		if m == nil || !s.crowded(m) && (s.unanswered() == 0 || s.c.replies.Buffered() == 0) {
			return nil
		}
		s.flush()
		if err := s.next(); err != nil {
			return err
		}
	}
}

// stream queues a whole message.
func (s *session) stream(m *message) error {
	if err := s.recipients(m, true); err != nil {
		return err
	}
	s.lastChunk(m, m.body)
	return nil
}

// crowded reports whether m has no room in the window, or is to wait until a big message is answered.
func (s *session) crowded(m *message) bool {
	if slices.ContainsFunc(s.begun, isBig) {
		return true
	}
	size := int64(m.size)
	for _, other := range s.begun {
		size += int64(other.size)
	}
	return len(s.begun) >= s.c.cfg.Window || len(s.begun) > 0 && size > s.c.cfg.WindowBytes
}

// lastChunk queues "BDAT n LAST" and its bytes. Behind these, the message is complete.
func (s *session) lastChunk(m *message, part []byte) {
	s.sendChunk(command{verb: verbEnd, message: m}, part, " LAST")
	s.buffer.EndChunk(&m.point, len(part))
	s.c.octets += int64(len(part))
}

func (s *session) sendChunk(cmd command, part []byte, last string) {
	s.line = append(strconv.AppendInt(append(s.line[:0], "BDAT "...), int64(len(part)), 10), last...)
	_ = s.sendLine(cmd) // never strict: it does not wait
	s.buffer.AddChunk(part)
	s.traceBody(part)
}

// probe sends the first message of a connection, or of one that was idle, step by
// step: nothing is in doubt if the connection turns out to be dead.
//
// Its first line is a chunk of its own if BDAT was not used before. A server which
// knows no BDAT, whatever it says, takes that for an unknown command and
// nothing more. All of a message would be read as commands by it, and some messages
// are written by strangers.
func (s *session) probe(m *message) error {
	if err := s.recipients(m, s.c.unclean || s.c.chunks); err != nil {
		return err
	}
	if err := s.await(); err != nil {
		return err
	}
	first := 0
	if m.ready = !m.failed(); m.ready && !s.c.chunks {
		first = bytes.IndexByte(m.body, '\n') + 1
		s.sendChunk(command{verb: verbChunk, message: m}, m.body[:first], "")
		if err := s.await(); err != nil {
			return err
		}
	}
	if !m.ready {
		s.dismiss(m)
		return nil
	}
	s.c.chunks = true
	if !s.commit(m) {
		return nil // RSET comes next
	}
	s.lastChunk(m, m.body[first:])
	return nil
}
