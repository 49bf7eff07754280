package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// maxTextLine is what a line of a message may have, CRLF included (RFC 5321, 4.5.3.1.6).
const maxTextLine = 1000

// A message is one on its way: what to send, and what has been answered. It may take
// several mail transactions (RFC 5321, 3.3) if it has more recipients than the server takes
// at once.
type message struct {
	index  int                  // in the batch
	loaded *mailer.EmailMessage // what is rendered; nil: nothing yet

	from     string
	to       []string // recipients of the transaction under way
	id       string   // Message-ID
	body     []byte   // the whole message, rendered
	size     int      // of body, or about that if it is not rendered yet
	eightBit bool     // it has bytes above 127
	utf8     bool     // sender or header are not ASCII, so that it needs SMTPUTF8

	// What became of the transaction under way.
	err   *mailer.SendError // its failure, except for refused recipients
	took  []string          // recipients accepted
	later []string          // recipients too many for one transaction
	ready bool              // the body may follow: 354 to DATA
	point transport.Point   // of no return; the link's

	answered int  // recipients of took whose final reply has come (LMTP)
	more     bool // accepted, and another transaction must follow for later

	// What became of all transactions.
	reply     string              // to the first that was accepted, else ""
	delivered []string            // recipients, where they are answered one by one (LMTP)
	refused   []*mailer.SendError // recipients
	settled   int                 // how many of refused are of earlier transactions

	told
}

// told is what hooks are told of a message.
type told struct {
	conn  *Conn // the last one that it was given to; nil: none
	start time.Time
	steps Steps
	way   Way
	asked int // recipients that the server was asked to take
}

// load makes m what is sent for email. The buffers of its last message are used again.
func (m *message) load(index int, email *mailer.EmailMessage) error {
	if err := m.address(index, email); err != nil {
		return err
	}
	if cap(m.body) < m.size {
		m.body = make([]byte, 0, m.size)
	}
	if _, err := email.WriteTo((*appender)(&m.body)); err != nil {
		return err
	}
	err := m.inspect()
	m.size = len(m.body)
	return err
}

// address is load without the body.
func (m *message) address(index int, email *mailer.EmailMessage) error {
	*m = message{index: index, body: m.body[:0], took: m.took[:0], delivered: m.delivered[:0]}
	envelope, err := email.Envelope()
	if err != nil {
		return err
	}
	m.from, m.to, m.id, m.size = envelope.From, envelope.To, email.MessageID, email.EstimateSize()
	if !isPath(m.from) || slices.ContainsFunc(m.to, func(addr string) bool { return !isPath(addr) }) {
		return &mailer.InvalidMessageError{Field: "envelope", Reason: "an address does not fit in an SMTP command"}
	}
	return nil
}

// inspect looks for what must not be on the wire, whoever has rendered it: bare CR
// or LF, which servers disagree about (SMTP smuggling), NUL and endless lines
// (RFC 5321, 2.3.8 and 4.5.3.1.6).
func (m *message) inspect() error {
	if !bytes.HasSuffix(m.body, []byte("\r\n")) {
		m.body = append(m.body, "\r\n"...)
	}
	header := true
	for rest := m.body; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		line := rest[:n]
		rest = rest[n:]
		if n < 2 || bytes.IndexByte(line, '\r') != n-2 || bytes.IndexByte(line, 0) >= 0 {
			return &mailer.InvalidMessageError{Field: "message", Reason: "a line has a bare CR, a bare LF or a NUL"}
		}
		if n > maxTextLine {
			return &mailer.InvalidMessageError{Field: "message", Reason: "a line is too long"}
		}
		header = header && n > 2
		if !isASCII(line) {
			m.eightBit = true
			m.utf8 = m.utf8 || header
		}
	}
	m.utf8 = m.utf8 || !isASCII([]byte(m.from))
	return nil
}

// needsUTF8 reports whether the message or a recipient needs SMTPUTF8.
func (m *message) needsUTF8() bool {
	return m.utf8 || slices.ContainsFunc(m.to, func(addr string) bool { return !isASCII([]byte(addr)) })
}

// begin prepares for a new transaction over c, if that is not nil.
func (m *message) begin(c *Conn) {
	m.conn = c
	m.err, m.took, m.later = nil, m.took[:0], nil
	m.point, m.ready, m.more, m.answered = transport.Point{}, false, false, 0
	m.refused = m.refused[:m.settled]
}

// refuse notes the refusal of one recipient.
func (m *message) refuse(addr string, err *mailer.SendError) {
	err.Recipient = addr
	m.refused = append(m.refused, err)
}

// failed reports whether the transaction cannot deliver to anybody.
func (m *message) failed() bool { return m.err != nil || len(m.took) == 0 }

// accepted notes that the transaction was accepted for the recipients in took.
func (m *message) accepted(reply string) {
	if m.reply == "" {
		m.reply = reply
	}
	m.next()
}

// deliveredTo notes that it was accepted for one of them (LMTP).
func (m *message) deliveredTo(addr, reply string) {
	if m.reply == "" {
		m.reply = reply
	}
	m.delivered = append(m.delivered, addr)
}

// next turns to the recipients that were too many for the transaction.
func (m *message) next() {
	m.settled, m.more = len(m.refused), len(m.later) > 0
	if m.more {
		m.to = m.later
	}
}

// decided reports whether the transaction has come to an end that a broken connection
// does not change. To be asked to come back later (421) is none.
func (m *message) decided() bool {
	if m.err != nil {
		return m.err.Code != 421
	}
	now := m.refused[m.settled:]
	return len(now) == len(m.to) && !slices.ContainsFunc(now, func(r *mailer.SendError) bool { return r.Code == 421 })
}

// result sums the transactions up.
func (m *message) result() mailer.Result {
	switch {
	case m.reply == "" && m.err != nil:
		m.err.Refused = m.refused
		return mailer.Result{Err: m.err, Connection: m.connection()}
	case m.reply == "":
		return mailer.Result{Err: nobodyTook(m.refused), Connection: m.connection()}
	case m.err != nil:
		m.refuseOthers()
	}
	for _, refused := range m.refused { // a server that took it for others is there for all
		if refused.Class == mailer.Unavailable {
			refused.Class = mailer.Temporary
		}
	}
	return mailer.Result{Reply: m.reply, Refused: m.refused, Connection: m.connection()}
}

// connection is the ID of the connection that the message was given to last, if any.
func (m *message) connection() string {
	if m.conn == nil {
		return ""
	}
	return m.conn.ID
}

// event is what hooks are told of a message with that result.
func (m *message) event(r mailer.Result) *Settled {
	return &Settled{
		Index: m.index, Conn: m.conn, Way: m.way, MessageID: m.id,
		Recipients: m.asked, Octets: len(m.body), Start: m.start, Steps: m.steps, Result: r,
	}
}

// refuseOthers gives the failure of the last transaction to its recipients, after
// an earlier one was accepted for others.
func (m *message) refuseOthers() {
	for _, addr := range m.to {
		answered := slices.Contains(m.delivered, addr) ||
			slices.ContainsFunc(m.refused[m.settled:], func(r *mailer.SendError) bool { return r.Recipient == addr })
		if !answered {
			err := *m.err
			m.refuse(addr, &err)
		}
	}
}

// nobodyTook is the failure of a message that was refused for every recipient.
// One who may yet be accepted is worth another try, so that the mildest refusal
// decides.
func nobodyTook(refused []*mailer.SendError) *mailer.SendError {
	decides := slices.MinFunc(refused, func(a, b *mailer.SendError) int {
		return mildness(a.Class) - mildness(b.Class)
	})
	return &mailer.SendError{
		Class: decides.Class, Step: decides.Step, Code: decides.Code, Enhanced: decides.Enhanced, Refused: refused,
	}
}

func mildness(c mailer.Class) int {
	return slices.Index([]mailer.Class{mailer.Unknown, mailer.Unavailable, mailer.Temporary, mailer.Permanent}, c)
}

// refuseUnfit returns why the server cannot be given the message at all. Recipients that it
// cannot be given are refused one by one.
func (m *message) refuseUnfit(ext *extensions) *mailer.SendError {
	if m.utf8 && !ext.smtpUTF8 {
		return noUTF8(mailer.StepMail)
	}
	if m.eightBit && !ext.allBytes {
		if err := m.encode(); err != nil {
			return err
		}
	}
	if ext.size > 0 && int64(len(m.body)) > ext.size {
		// RFC 1870, 6.1: no use in sending what exceeds the limit.
		return &mailer.SendError{
			Class: mailer.Permanent, Step: mailer.StepMail, Enhanced: "5.3.4",
			Err: fmt.Errorf("message of %d octets, and the server takes %d at most (5.3.4)", len(m.body), ext.size),
		}
	}
	if ext.smtpUTF8 {
		return nil
	}
	var ascii []string
	for _, addr := range m.to {
		if isASCII([]byte(addr)) {
			ascii = append(ascii, addr)
			continue
		}
		m.refuse(addr, noUTF8(mailer.StepRcpt))
	}
	if m.settled = len(m.refused); len(ascii) == 0 {
		return nobodyTook(m.refused)
	}
	m.to = ascii
	return nil
}

// encode makes the message one in 7 bit (RFC 6152, 3). It stays so: it means the same over another connection.
func (m *message) encode() *mailer.SendError {
	encoded, err := mailer.EncodeBody(m.body)
	if err != nil {
		return &mailer.SendError{
			Class: mailer.Permanent, Step: mailer.StepMail, Enhanced: "5.6.3",
			Err: fmt.Errorf("the server has no 8BITMIME (5.6.3): %w", err),
		}
	}
	m.body, m.size, m.eightBit = encoded, len(encoded), false
	return nil
}

// noUTF8 is what RFC 6531, 3.2 asks for where the server lacks SMTPUTF8.
func noUTF8(step mailer.Step) *mailer.SendError {
	return &mailer.SendError{
		Class: mailer.Permanent, Step: step, Enhanced: "5.6.7",
		Err: errors.New("an address is not ASCII and the server has no SMTPUTF8 (5.6.7)"),
	}
}

// isPath reports whether addr can stand between the angle brackets of MAIL and RCPT
// without ending them: RFC 5321, 4.1.2, where blanks and brackets need quotes.
func isPath(addr string) bool {
	quoted := false
	for i := 0; i < len(addr); i++ {
		switch b := addr[i]; {
		case b < ' ' || b == 0x7f:
			return false
		case b == '"':
			quoted = !quoted
		case b == '\\' && quoted:
			i++
			if i == len(addr) || addr[i] < ' ' || addr[i] > '~' {
				return false
			}
		case !quoted && strings.IndexByte(" <>", b) >= 0:
			return false
		}
	}
	return !quoted
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c > 0x7f {
			return false
		}
	}
	return true
}

// appender is a byte slice that can be written to.
type appender []byte

// AvailableBuffer returns what is free, for what is written next: so it needs no copy.
func (a *appender) AvailableBuffer() []byte { return (*a)[len(*a):] }

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
