package smtp

import (
	"bytes"
	"fmt"
	"strconv"
)

// pipeline sends message after message. Where the server offers PIPELINING (RFC
// 2920) the body of one goes out together with the envelope of the next, so that
// each message takes one round trip:
//
//	C: MAIL, RCPT, DATA of the first
//	S: 250, 250, 354
//	C: body of the first and its dot; MAIL, RCPT, DATA of the second
//	S: 250; 250, 250, 354
//	C: ...
//
// A strict session waits for each reply instead, and is otherwise the same.
func (s *session) pipeline() error {
	for {
		j, err := s.take()
		if err != nil {
			return err
		}
		if j == nil && s.unanswered() == 0 {
			return nil
		}
		if j == nil {
			// The last reply may bring back a job that needs another transaction.
			if err := s.await(); err != nil {
				return err
			}
			continue
		}
		if err := s.envelope(j); err != nil {
			return err
		}
		if err := s.content(j); err != nil {
			return err
		}
	}
}

// take takes the next message that may be sent and that the server can be given, unless
// the connection has carried enough. Between the question whether it may be sent and its
// MAIL nothing is waited for, but the reply to RSET if the session is strict.
func (s *session) take() (*job, error) {
	for !s.c.full() {
		if s.chunks {
			if err := s.room(); err != nil {
				return nil, err
			}
		}
		j := s.q.take()
		if j == nil {
			return nil, nil
		}
		if !s.q.admit(j) {
			continue
		}
		j.begin(s.c)
		j.way = s.way
		if j.err = j.unfit(&s.c.ext); j.err == nil {
			s.begun = append(s.begun, j)
			j.asked = max(j.asked, len(j.to))
			s.c.messages++
			return j, nil
		}
		s.q.finish(j)
	}
	return nil, nil
}

// envelope says MAIL, RCPT and DATA and waits for the replies, those to what was
// queued before included.
func (s *session) envelope(j *job) error {
	if err := s.recipients(j, s.c.unclean); err != nil {
		return err
	}
	if s.strict && j.failed() {
		return nil
	}
	if err := s.say(command{verb: verbData, job: j}, "DATA"); err != nil {
		return err
	}
	s.flush()
	s.q.peek() // renders the next message while the server is busy
	return s.await()
}

// recipients says MAIL and RCPT. After a transaction that was broken off it says RSET
// first: Postfix refuses MAIL then, and would take what follows for a message of
// the sender before.
func (s *session) recipients(j *job, reset bool) error {
	if reset {
		if err := s.say(command{verb: verbReset, job: j}, "RSET"); err != nil {
			return err
		}
		s.c.unclean = false
	}
	if err := s.sayMail(j); err != nil {
		return err
	}
	for _, addr := range j.to {
		if j.err != nil {
			return nil // strict, and MAIL was refused
		}
		if err := s.sayRcpt(j, addr); err != nil {
			return err
		}
	}
	return nil
}

// content sends the body if the server is ready for it and somebody is to get it.
func (s *session) content(j *job) error {
	switch {
	case !j.ready:
		if err := s.stays(j); err != nil {
			return err
		}
		s.dismiss(j)
		return nil
	case j.failed() && s.c.cfg.LMTP:
		return errOutOfStep // RFC 2033, 4.2: no recipients, no 354
	case j.failed():
		// 354 though every recipient was refused: a lone dot ends it (RFC 2920, 3.1),
		// and what the server says to that changes nothing.
		s.dismiss(j)
		return s.sayEnd(command{verb: verbNothing}, 1)
	}
	if s.c.in.r.Buffered() > 0 { // an answer to a message that has not been written
		s.pending = append(s.pending, command{verb: verbEnd, job: j})
		return s.next()
	}
	s.group.add(j.body, true)
	s.c.octets += int64(len(j.body))
	s.traceBody(j.body)
	replies := 1
	if s.c.cfg.LMTP {
		replies = len(j.took)
	}
	return s.sayEnd(command{verb: verbEnd, job: j}, replies)
}

// dismiss ends a job that the server has refused before the body.
func (s *session) dismiss(j *job) {
	s.c.unclean = true
	s.c.settled++
	s.end(j)
}

// sayEnd queues the final dot. Behind it, the message is complete.
func (s *session) sayEnd(cmd command, replies int) error {
	last := 0
	if cmd.job != nil && len(cmd.job.body) > smallMessage {
		last = len(s.group.bytes)
	}
	s.group.bytes = append(s.group.bytes, finalDot...)
	if cmd.job != nil {
		s.group.ends = append(s.group.ends, end{
			at: len(s.group.bytes), last: last, job: cmd.job, quiet: true, arrived: s.c.link.arrived.Load(),
		})
	}
	for range replies {
		s.pending = append(s.pending, cmd)
	}
	if s.strict {
		return s.await()
	}
	return nil
}

// appendStuffed appends body with a dot before each line that begins with one (RFC
// 5321, 4.5.2).
func appendStuffed(dst, body []byte) []byte {
	if len(body) > 0 && body[0] == '.' {
		dst = append(dst, '.')
	}
	for {
		i := bytes.Index(body, crlfDot)
		if i < 0 {
			return append(dst, body...)
		}
		i += len(crlfDot)
		dst = append(append(dst, body[:i]...), '.')
		body = body[i:]
	}
}

func (s *session) traceBody(body []byte) {
	if s.c.cfg.Trace != nil {
		s.c.trace("C: ", fmt.Sprintf("(message of %d octets)", len(body)))
	}
}

// sayMail says MAIL with the parameters that the server offers and the message needs.
func (s *session) sayMail(j *job) error {
	ext, line := &s.c.ext, append(s.line[:0], "MAIL FROM:<"...)
	line = append(append(line, j.from...), '>')
	if ext.sized {
		line = strconv.AppendInt(append(line, " SIZE="...), int64(len(j.body)), 10) // RFC 1870, 5
	}
	if ext.eightBit && j.eightBit {
		line = append(line, " BODY=8BITMIME"...) // RFC 6152, 3
	}
	if ext.smtpUTF8 && j.needsUTF8() {
		line = append(line, " SMTPUTF8"...) // RFC 6531, 3.4
	}
	if ext.dsn {
		line = s.c.cfg.DSN.appendMail(line, j.id)
	}
	s.line = line
	return s.sayLine(command{verb: verbMail, job: j})
}

func (s *session) sayRcpt(j *job, addr string) error {
	line := append(append(append(s.line[:0], "RCPT TO:<"...), addr...), '>')
	if s.c.ext.dsn && s.c.cfg.DSN.Notify != "" {
		line = append(append(line, " NOTIFY="...), s.c.cfg.DSN.Notify...) // RFC 3461, 4.1
	}
	s.line = line
	return s.sayLine(command{verb: verbRcpt, job: j, rcpt: addr})
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
