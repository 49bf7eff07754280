package chaos

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// session is one connection of the relay, served by one goroutine.
type session struct {
	relay *relay
	conn  *net.TCPConn
	in    *bufio.Reader
	out   *bufio.Writer
	line  *line
	stop  chan struct{} // closed when the test ends

	fate   fate
	rcpts  []string
	chunks []byte // of the message so far
}

func newSession(r *relay, conn *net.TCPConn) *session {
	return &session{
		relay: r, conn: conn, line: new(line), stop: make(chan struct{}),
		in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriter(conn),
	}
}

func (s *session) serve() {
	defer s.relay.ended(s)
	defer func() { _ = s.conn.Close() }()
	s.say("220 relay.example.com ESMTP")
	for {
		if s.in.Buffered() == 0 && s.out.Flush() != nil {
			return
		}
		text, err := s.in.ReadString('\n')
		if err != nil || !s.command(strings.TrimRight(text, "\r\n")) || s.relay.isAway() {
			s.goodbye()
			return
		}
	}
}

// goodbye ends the connection so that the client can read all that was said. A close
// with bytes unread would make the system throw away replies on their way.
func (s *session) goodbye() {
	if s.out.Flush() != nil || s.conn.CloseWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.Copy(io.Discard, s.conn)
}

// hangUp ends the connection as a crash would.
func (s *session) hangUp() bool {
	_ = s.conn.SetLinger(0)
	_ = s.conn.Close()
	return false
}

func (s *session) say(reply string) { fmt.Fprintf(s.out, "%s\r\n", reply) }

// later is the last word of a server that wants no more for now.
func (s *session) later() bool {
	s.say("421 4.3.2 come back later")
	return false
}

// command answers one command. It is false if the connection is to end.
func (s *session) command(text string) bool {
	verb, arg, _ := strings.Cut(text, " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		s.relay.named(s, arg)
		s.say("250-relay.example.com\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 SIZE 10000000")
	case "MAIL":
		return s.mail()
	case "RCPT":
		return s.rcpt(arg)
	case "DATA":
		return s.data()
	case "BDAT":
		return s.chunk(arg)
	case "RSET", "NOOP":
		s.say("250 2.0.0 ok")
	case "QUIT":
		s.say("221 2.0.0 bye")
		return false
	default:
		s.say("502 5.5.1 unknown command")
	}
	return true
}

func (s *session) mail() bool {
	s.fate, s.rcpts, s.chunks = s.relay.draw(), nil, nil
	switch s.fate {
	case cutBeforeMail:
		return false
	case laterAtMail:
		return s.later()
	}
	s.say("250 2.1.0 ok")
	return true
}

// rcpt refuses half of the messages that are to be refused. The other half is refused
// at the dot.
func (s *session) rcpt(arg string) bool {
	to, ok := strings.CutPrefix(arg, "TO:<")
	to, _, end := strings.Cut(to, ">")
	number, known := recipient(to)
	if !ok || !end || !known {
		s.say("501 5.1.3 who?")
		return true
	}
	if s.fate == laterAtRcpt {
		return s.later()
	}
	switch f := s.relay.faults; {
	case f.refuses(number) && number/f.refuseOne%2 == 0, f.others && strings.HasPrefix(to, "nobody"):
		s.say("550 5.1.1 no such user")
	case s.relay.putsOff(to, s.line.worker):
		s.say("450 4.2.0 come back later")
	default:
		s.rcpts = append(s.rcpts, to)
		s.say("250 2.1.5 ok")
	}
	return s.fate != cutAfterRcpt
}

// recipient reads which message an address is of.
func recipient(address string) (number int, known bool) {
	for _, form := range []string{"u%d@example.com", "nobody%d@example.com", "later%d@example.com"} {
		if _, err := fmt.Sscanf(address, form, &number); err == nil {
			return number, true
		}
	}
	return -1, false
}

func (s *session) data() bool {
	if len(s.rcpts) == 0 {
		s.say("554 5.5.1 no valid recipients")
		return true
	}
	s.say("354 go on")
	if s.out.Flush() != nil {
		return false
	}
	body, ok := s.body()
	if !ok {
		return s.fate == cutInBody && s.hangUp()
	}
	return s.whole(body)
}

// chunk takes the octets of BDAT (RFC 3030), which are there whatever is said of them.
func (s *session) chunk(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	octets, err := strconv.Atoi(size)
	if err != nil {
		s.say("501 5.5.4 how many?")
		return false
	}
	if s.fate == cutInBody {
		_, _ = io.CopyN(io.Discard, s.in, int64(octets/2))
		return s.hangUp()
	}
	chunk := make([]byte, octets)
	if _, err := io.ReadFull(s.in, chunk); err != nil {
		return false
	}
	s.chunks = append(s.chunks, chunk...)
	switch {
	case len(s.rcpts) == 0:
		s.say("554 5.5.1 no valid recipients")
	case last == "":
		s.say("250 2.0.0 go on")
	default:
		return s.whole(s.chunks)
	}
	return true
}

// whole is what becomes of a message that has come whole, after a while.
func (s *session) whole(body []byte) bool {
	pause := time.NewTimer(s.relay.pause())
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.stop:
		return false
	}
	return s.verdict(body)
}

// body reads a message up to its dot. It is false if there is no dot, or if the
// connection is to be lost before it.
func (s *session) body() ([]byte, bool) {
	var body []byte
	for {
		text, err := s.in.ReadSlice('\n')
		if err != nil {
			return nil, false
		}
		if string(text) == ".\r\n" {
			return body, true
		}
		body = append(body, bytes.TrimPrefix(text, []byte("."))...)
		if s.fate == cutInBody {
			return nil, false
		}
	}
}

// verdict keeps the message or refuses it, and says so or does not.
func (s *session) verdict(body []byte) bool {
	number, ok := numberOf(body)
	switch {
	case !ok:
		s.say("554 5.6.0 not one of ours")
		return true
	case s.fate == laterAtDot:
		return s.later()
	case s.relay.faults.refuses(number):
		s.say("550 5.7.1 not wanted")
		return true
	}
	if s.relay.isMute() {
		s.relay.held <- struct{}{}
		_, _ = io.Copy(io.Discard, s.in) // until the client gives up: the message is not kept
		return false
	}
	s.relay.keep(number, keptCopy{
		line: s.line, to: slices.Clone(s.rcpts), sum: sha256.Sum256(body), plain: sha256.Sum256(withoutTrace(body)),
		cutOff: s.fate == cutBeforeReply,
	})
	if s.fate == cutBeforeReply {
		return s.hangUp()
	}
	s.say(fmt.Sprintf("250 2.0.0 kept as %d", number))
	if s.out.Flush() != nil {
		s.relay.unread(number)
		return false
	}
	return s.fate != cutAfterReply
}

// withoutTrace is a message without the Received field that it may begin with.
func withoutTrace(body []byte) []byte {
	if !bytes.HasPrefix(body, []byte("Received:")) {
		return body
	}
	end := bytes.IndexByte(body, '\n') + 1
	for end < len(body) && (body[end] == ' ' || body[end] == '\t') {
		end += bytes.IndexByte(body[end:], '\n') + 1
	}
	return body[end:]
}

// numberOf reads the number of a message from its Message-ID.
func numberOf(body []byte) (number int, ok bool) {
	for text := range bytes.Lines(body) {
		if _, err := fmt.Sscanf(string(text), "Message-ID: <%d@chaos.example.com>", &number); err == nil {
			return number, true
		}
	}
	return 0, false
}
