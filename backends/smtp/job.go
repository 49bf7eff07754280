package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// maxTextLine is what a line of a message may have, CRLF included (RFC 5321, 4.5.3.1.6).
const maxTextLine = 1000

// A job is one message on its way: what to send, and what has been answered.
type job struct {
	index int // in the batch

	from     string
	to       []string // recipients of the transaction under way
	id       string   // Message-ID
	body     []byte   // the whole message, rendered
	eightBit bool     // it has octets above 127
	utf8     bool     // sender or header are not ASCII, so that it needs SMTPUTF8

	// What became of the transaction under way.
	err   *mailer.SendError // its failure, except for refused recipients
	took  []string          // recipients accepted
	later []string          // recipients too many for one transaction
	ready bool              // the body may follow: 354 to DATA
	gone  bool              // past the point of no return; guarded by link.mu
	wrote bool              // gone, and its last byte has been written, or will be at once; guarded by link.mu

	answered int  // recipients of took whose final reply has come (LMTP)
	more     bool // accepted, and another transaction must follow for later

	// What became of all transactions.
	reply     string              // to the first that was accepted, else ""
	delivered []string            // recipients, where they are answered one by one (LMTP)
	refused   []*mailer.SendError // recipients
	settled   int                 // how many of refused are of earlier transactions

	// For hooks.
	conn  *conn // the last one that it was given to; nil: none
	start time.Time
	steps Steps
	way   Way
	asked int // recipients that the server was asked to take
}

// load makes j the job of message m. The buffers of its last message are used again.
func (j *job) load(index int, m *mailer.EmailMessage) error {
	*j = job{index: index, body: j.body[:0], took: j.took[:0], delivered: j.delivered[:0]}
	envelope, err := m.Envelope()
	if err != nil {
		return err
	}
	j.from, j.to, j.id = envelope.From, envelope.To, m.MessageID
	if !isPath(j.from) || slices.ContainsFunc(j.to, func(addr string) bool { return !isPath(addr) }) {
		return &mailer.InvalidMessageError{Field: "envelope", Reason: "an address does not fit in an SMTP command"}
	}
	if size := m.EstimateSize(); cap(j.body) < size {
		j.body = make([]byte, 0, size)
	}
	if _, err := m.WriteTo((*appender)(&j.body)); err != nil {
		return err
	}
	return j.inspect()
}

// inspect looks for what must not be on the wire, whoever has rendered it: bare CR
// or LF, which servers disagree about (SMTP smuggling), NUL and endless lines
// (RFC 5321, 2.3.8 and 4.5.3.1.6).
func (j *job) inspect() error {
	if !bytes.HasSuffix(j.body, crlf) {
		j.body = append(j.body, crlf...)
	}
	header := true
	for rest := j.body; len(rest) > 0; {
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
			j.eightBit = true
			j.utf8 = j.utf8 || header
		}
	}
	j.utf8 = j.utf8 || !isASCII([]byte(j.from))
	return nil
}

// needsUTF8 says whether the message or a recipient needs SMTPUTF8.
func (j *job) needsUTF8() bool {
	return j.utf8 || slices.ContainsFunc(j.to, func(addr string) bool { return !isASCII([]byte(addr)) })
}

// begin prepares for a new transaction over c, if that is not nil.
func (j *job) begin(c *conn) {
	j.conn = c
	j.err, j.took, j.later = nil, j.took[:0], nil
	j.ready, j.gone, j.wrote, j.more, j.answered = false, false, false, false, 0
	j.refused = j.refused[:j.settled]
}

// refuse notes the refusal of one recipient.
func (j *job) refuse(addr string, err *mailer.SendError) {
	err.Recipient = addr
	j.refused = append(j.refused, err)
}

// failed says whether the transaction cannot deliver to anybody.
func (j *job) failed() bool { return j.err != nil || len(j.took) == 0 }

// accepted notes that the transaction was accepted for the recipients in took.
func (j *job) accepted(reply string) {
	if j.reply == "" {
		j.reply = reply
	}
	j.next()
}

// deliveredTo notes that it was accepted for one of them (LMTP).
func (j *job) deliveredTo(addr, reply string) {
	if j.reply == "" {
		j.reply = reply
	}
	j.delivered = append(j.delivered, addr)
}

// next turns to the recipients that were too many for the transaction.
func (j *job) next() {
	j.settled, j.more = len(j.refused), len(j.later) > 0
	if j.more {
		j.to = j.later
	}
}

// decided says whether the transaction has come to an end that a broken connection
// does not change. To be asked to come back later (421) is none.
func (j *job) decided() bool {
	if j.err != nil {
		return j.err.Code != 421
	}
	now := j.refused[j.settled:]
	return len(now) == len(j.to) && !slices.ContainsFunc(now, func(r *mailer.SendError) bool { return r.Code == 421 })
}

// result sums the transactions up.
func (j *job) result() mailer.Result {
	switch {
	case j.reply == "" && j.err != nil:
		j.err.Refused = j.refused
		return mailer.Result{Err: j.err, Connection: j.connection()}
	case j.reply == "":
		return mailer.Result{Err: nobodyTook(j.refused), Connection: j.connection()}
	case j.err != nil:
		j.refuseRest()
	}
	return mailer.Result{Reply: j.reply, Refused: j.refused, Connection: j.connection()}
}

// connection is the ID of the connection that the message was given to last, if any.
func (j *job) connection() string {
	if j.conn == nil {
		return ""
	}
	return j.conn.about.ID
}

// told is what hooks are told of a job with that result.
func (j *job) told(r mailer.Result) *Settled {
	return &Settled{
		Index: j.index, Conn: j.conn.about, Way: j.way, MessageID: j.id,
		Recipients: j.asked, Octets: len(j.body), Start: j.start, Steps: j.steps, Result: r,
	}
}

// refuseRest gives the failure of the last transaction to its recipients, after
// an earlier one was accepted for others.
func (j *job) refuseRest() {
	for _, addr := range j.to {
		answered := slices.Contains(j.delivered, addr) ||
			slices.ContainsFunc(j.refused[j.settled:], func(r *mailer.SendError) bool { return r.Recipient == addr })
		if !answered {
			err := *j.err
			j.refuse(addr, &err)
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
		Class: decides.Class, Step: decides.Step, Code: decides.Code, Enhanced: decides.Enhanced,
		Refused: refused, Err: errNobody,
	}
}

var errNobody = errors.New("no recipient was accepted")

func mildness(c mailer.Class) int {
	return slices.Index([]mailer.Class{mailer.Unknown, mailer.Unavailable, mailer.Temporary, mailer.Permanent}, c)
}

// unfit says why the server cannot be given the message at all. Recipients that it
// cannot be given are refused one by one.
func (j *job) unfit(ext *extensions) *mailer.SendError {
	if ext.size > 0 && int64(len(j.body)) > ext.size {
		// RFC 1870, 6.1: no use in sending what exceeds the limit.
		return &mailer.SendError{
			Class: mailer.Permanent, Step: mailer.StepMail, Enhanced: "5.3.4",
			Err: fmt.Errorf("message of %d octets, and the server takes %d at most (5.3.4)", len(j.body), ext.size),
		}
	}
	if j.utf8 && !ext.smtpUTF8 {
		return noUTF8(mailer.StepMail)
	}
	if j.eightBit && !ext.eightBit {
		return &mailer.SendError{ // RFC 6152, 3; what is rendered is 7 bit, but for headers in UTF-8
			Class: mailer.Permanent, Step: mailer.StepMail, Enhanced: "5.6.3",
			Err: errors.New("a message in 8 bit, and the server has no 8BITMIME (5.6.3)"),
		}
	}
	if ext.smtpUTF8 {
		return nil
	}
	var ascii []string
	for _, addr := range j.to {
		if isASCII([]byte(addr)) {
			ascii = append(ascii, addr)
			continue
		}
		j.refuse(addr, noUTF8(mailer.StepRcpt))
	}
	if j.settled = len(j.refused); len(ascii) == 0 {
		return nobodyTook(j.refused)
	}
	j.to = ascii
	return nil
}

// noUTF8 is what RFC 6531, 3.2 asks for where the server lacks SMTPUTF8.
func noUTF8(step mailer.Step) *mailer.SendError {
	return &mailer.SendError{
		Class: mailer.Permanent, Step: step, Enhanced: "5.6.7",
		Err: errors.New("an address is not ASCII and the server has no SMTPUTF8 (5.6.7)"),
	}
}

// isPath says whether addr can stand between the angle brackets of MAIL and RCPT
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
