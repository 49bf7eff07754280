package smtp

import (
	"bytes"
	"errors"
	"slices"
	"strconv"

	"github.com/mailpouch/mailpouch/mailer"
)

var errNoChunks = errors.New("the server offers CHUNKING and does not know BDAT")

// chunk streams messages with BDAT (RFC 3030) and lets up to a window of them be
// unanswered. RSET comes before each, for the state after a refused BDAT is
// indeterminate (RFC 3030, 2), and a reply to it could come too late.
func (s *session) chunk() error {
	for {
		j, err := s.take()
		if err != nil {
			return err
		}
		if j == nil && s.unanswered() == 0 {
			return nil
		}
		if j == nil {
			if err := s.await(); err != nil {
				return err
			}
			continue
		}
		send := s.stream
		if !s.c.chunks || !s.heard && !s.c.isFresh() {
			send = s.probe
		}
		if err := send(j); err != nil {
			return err
		}
	}
}

// room waits until there is room in the window for the next message, whichever that is by
// then: one that must be sent once more comes first.
func (s *session) room() error {
	for {
		j := s.q.peek()
		if j == nil || !s.crowded(j) && (s.unanswered() == 0 || s.c.in.r.Buffered() == 0) {
			return nil
		}
		s.flush()
		if err := s.next(); err != nil {
			return err
		}
	}
}

// stream queues a whole message.
func (s *session) stream(j *job) error {
	if err := s.recipients(j, true); err != nil {
		return err
	}
	return s.lastChunk(j, j.body)
}

// crowded reports whether j has no room in the window.
func (s *session) crowded(j *job) bool {
	octets := int64(len(j.body))
	for _, other := range s.begun {
		octets += int64(len(other.body))
	}
	return len(s.begun) >= s.c.cfg.Window || len(s.begun) > 0 && octets > s.c.cfg.WindowBytes
}

// lastChunk queues "BDAT n LAST" and the octets. Behind these, the message is complete.
func (s *session) lastChunk(j *job, octets []byte) error {
	s.sayChunk(command{verb: verbEnd, job: j}, octets, " LAST")
	at, last := len(s.group.bytes), 0
	if len(octets) > smallMessage {
		last = at - len(crlf)
	}
	s.group.ends = append(s.group.ends, end{at: at, last: last, job: j})
	s.c.octets += int64(len(octets))
	return nil
}

func (s *session) sayChunk(cmd command, octets []byte, last string) {
	s.line = append(strconv.AppendInt(append(s.line[:0], "BDAT "...), int64(len(octets)), 10), last...)
	_ = s.sayLine(cmd) // never strict: it does not wait
	s.group.add(octets, false)
	s.traceBody(octets)
}

// probe sends the first message of a connection, or of one that was idle, step by
// step: nothing is in doubt if the connection turns out to be dead.
//
// Its first line is a chunk of its own if BDAT was not used before. A server which
// knows no BDAT, whatever it says, takes that for an unknown command and
// nothing more. All of a message would be read as commands by it, and some messages
// are written by strangers.
func (s *session) probe(j *job) error {
	if err := s.recipients(j, s.c.unclean || s.c.chunks); err != nil {
		return err
	}
	if err := s.await(); err != nil {
		return err
	}
	first := 0
	if j.ready = !j.failed(); j.ready && !s.c.chunks {
		first = bytes.IndexByte(j.body, '\n') + 1
		s.sayChunk(command{verb: verbChunk, job: j}, j.body[:first], "")
		if err := s.await(); err != nil {
			return err
		}
	}
	if !j.ready {
		s.dismiss(j)
		return nil
	}
	s.c.chunks = true
	return s.lastChunk(j, j.body[first:])
}

// answerChunk is the reply to the probe.
func (s *session) answerChunk(j *job, r *reply) error {
	if r.code == 250 {
		return nil
	}
	j.ready = false
	if slices.Contains([]int{500, 502, 503, 504, 521}, r.code) {
		return errNoChunks
	}
	return s.refused(j, mailer.StepBody, r)
}
