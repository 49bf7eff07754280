package smtpd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/redact"
)

// common is what all sessions share.
type common struct {
	cfg      Config
	ctx      context.Context //nolint:containedctx // ends when nothing may be waited for any more
	handover *handover
	budget   *budget
}

// session is the conversation with one client.
type session struct {
	*common
	wire     *wire
	listener Listener
	addr     netip.Addr // the zero Addr for a unix socket
	trusted  bool

	secure   bool   // TLS
	helo     string // "" before EHLO
	extended bool   // it was EHLO or LHLO
	key      *intake.Key

	commands int // before the login
	logins   int // that failed
	refusals int // since a message was accepted

	begun    bool // MAIL was accepted
	utf8     bool // with SMTPUTF8
	tried    bool // RCPT was given
	chunked  bool // BDAT was given
	envelope envelope
	body     body
}

func newSession(c *common, conn net.Conn, l Listener, addr netip.Addr) *session {
	s := &session{common: c, wire: newWire(conn, c.cfg.Timeout), listener: l, addr: addr, trusted: c.cfg.trusted(l, addr)}
	s.body = body{limit: c.cfg.MaxMessageSize, budget: c.budget}
	if !s.trusted {
		s.wire.until = time.Now().Add(c.cfg.LoginTimeout)
	}
	return s
}

// The longest lines of commands in bytes, with their ends. RFC 5321, 4.5.3.1.4, wants 512, and extensions add to that; an answer
// to AUTH may have 12,288 (RFC 4954, 4).
const (
	maxLine     = 2048
	maxAuthLine = 12_288
)

// serve talks with the client until one of the two ends that.
func (s *session) serve() {
	defer s.wire.close()
	defer s.body.end()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error().Str("panic", redact.Panic(p)).Bytes("stack", debug.Stack()).Msg("smtpd: a session has failed")
			s.say("421 4.3.0 Internal error")
		}
	}()
	if s.listener.ImplicitTLS && !s.startTLS() {
		return
	}
	service := "ESMTP"
	if s.listener.LMTP {
		service = "LMTP"
	}
	s.wire.say("220 " + s.cfg.Hostname + " " + service + " Mailpouch")
	for s.next() {
	}
}

// next takes one command, and reports whether the conversation goes on.
func (s *session) next() bool {
	line, err := s.wire.line(maxAuthLine, !s.chunked)
	if err != nil {
		return s.broken(err)
	}
	verb, arg := cutVerb(line)
	if len(line) > maxLine && verb != "AUTH" {
		return s.broken(errTooLong)
	}
	if s.wire.isEnding() && !s.chunked {
		s.say(replyEnding)
		return false
	}
	if s.commands++; s.commands > s.cfg.MaxCommands && !s.mayHandIn() && verb != "AUTH" {
		return s.turnAway(TooManyCommands, "421 4.7.0 Too many commands without a login")
	}
	r, err := s.command(verb, arg)
	if err != nil {
		return s.broken(err)
	}
	return s.reply(r)
}

// reply gives a reply, and reports whether the conversation goes on. "" was given already.
func (s *session) reply(r reply) bool {
	if r != "" {
		s.say(r)
	}
	if r.refuses() {
		s.refusals++
	}
	switch {
	case r.closes():
		return false
	case s.logins >= s.cfg.MaxLogins:
		return s.turnAway(TooManyLogins, "421 4.7.0 Too many failed logins")
	case s.refusals >= s.cfg.MaxErrors:
		return s.turnAway(TooManyErrors, "421 4.7.0 Too many errors")
	}
	return true
}

func (s *session) say(r reply) { s.wire.say(string(r)) }

// turnAway says why the conversation ends.
func (s *session) turnAway(reason Reason, r reply) bool {
	s.say(r)
	s.cfg.Hooks.turnedAway(reason)
	return false
}

// errHangUp ends a conversation in which all has been said.
var errHangUp = errors.New("smtpd: the conversation is over")

// lastly gives the last reply.
func (s *session) lastly(r reply) (reply, error) {
	s.say(r)
	return "", errHangUp
}

// broken ends the conversation after an error of the connection, or goes on after a line that is too long.
func (s *session) broken(err error) bool {
	switch {
	case errors.Is(err, errTooLong):
		return s.reply("500 5.5.2 Line too long")
	case errors.Is(err, errBareEnd):
		return s.turnAway(BareLineEnd, replyBareEnd)
	case errors.Is(err, errEnding):
		s.say(replyEnding)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return s.turnAway(TooSlow, replyTimeout)
	}
	return false
}

// mayHandIn reports whether the client may hand in mail.
func (s *session) mayHandIn() bool { return s.key != nil || s.trusted }

// mayLogIn reports whether a login is offered: a password goes through no open network.
func (s *session) mayLogIn() bool { return s.secure || s.cfg.private(s.listener, s.addr) }

// command does a command and returns the reply. An error is one of the connection.
func (s *session) command(verb, arg string) (reply, error) {
	switch verb {
	case "EHLO", "HELO", "LHLO":
		return s.hello(verb, arg), nil
	case "MAIL":
		return s.mail(arg), nil
	case "RCPT":
		return s.rcpt(arg), nil
	case "DATA":
		return s.data(arg)
	case "BDAT":
		return s.bdat(arg)
	case "RSET":
		s.reset()
		return replyOK, nil
	case "NOOP":
		return replyOK, nil
	case "QUIT":
		return "221 2.0.0 Bye", nil
	case "STARTTLS":
		return s.upgrade(arg)
	case "AUTH":
		return s.login(arg)
	case "VRFY":
		return "252 2.5.0 Cannot verify the address, but will take mail for it", nil
	case "HELP":
		return "214 2.0.0 See RFC 5321", nil
	}
	if s.helo == "" {
		// Another protocol, maybe because a browser was told to send a form here.
		return s.lastly("500 5.5.2 This is a mail server")
	}
	return "500 5.5.2 Command not recognised", nil
}

// hello greets the client and tells it the extensions.
func (s *session) hello(verb, name string) reply {
	switch {
	case s.listener.LMTP != (verb == "LHLO"):
		return "500 5.5.1 Command not recognised: LMTP takes LHLO, and SMTP takes EHLO"
	case name == "":
		return answer("501 5.5.4", "%s takes a name", verb)
	}
	s.reset()
	s.helo, s.extended = name, verb != "HELO"
	if !s.extended {
		return reply("250 " + s.cfg.Hostname)
	}
	lines := []string{
		s.cfg.Hostname, "SIZE " + strconv.Itoa(s.cfg.MaxMessageSize), "PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES",
	}
	if s.cfg.TLS != nil && !s.secure {
		lines = append(lines, "STARTTLS")
	}
	if s.mayLogIn() {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	last := len(lines) - 1
	for _, line := range lines[:last] {
		s.wire.say("250-" + line)
	}
	return reply("250 " + lines[last])
}

// reset forgets the message that was begun.
func (s *session) reset() {
	s.begun, s.utf8, s.tried, s.chunked = false, false, false, false
	s.envelope = envelope{}
	s.body.end()
	if s.mayHandIn() {
		s.wire.until = time.Time{}
	}
}

// upgrade begins TLS (RFC 3207).
func (s *session) upgrade(arg string) (reply, error) {
	switch {
	case arg != "":
		return "501 5.5.4 STARTTLS takes no parameters", nil
	case s.secure || s.begun:
		return replySequence, nil
	case s.cfg.TLS == nil:
		return "502 5.5.1 TLS is not available", nil
	case s.wire.r.Buffered() > 0:
		return s.lastly("503 5.5.1 Nothing may follow STARTTLS before the handshake") // somebody else may have put it there
	}
	s.say("220 2.0.0 Ready to start TLS")
	if err := s.wire.flush(); err != nil {
		return "", err
	}
	if !s.startTLS() {
		return "", errHangUp // what was encrypted in part has no clear text behind it
	}
	s.helo, s.extended, s.key = "", false, nil
	return "", nil
}

// startTLS reports whether the client speaks TLS now.
func (s *session) startTLS() bool {
	s.secure = s.wire.secure(s.ctx, s.cfg.TLS) == nil
	return s.secure
}

// login lets a client log in (RFC 4954).
func (s *session) login(arg string) (reply, error) {
	switch {
	case !s.extended || s.key != nil || s.begun:
		return replySequence, nil
	case !s.mayLogIn():
		return "538 5.7.11 Encryption required for a login", nil
	}
	password, r, err := readLogin(arg, func(challenge string) (string, error) {
		s.wire.say("334 " + challenge)
		return s.wire.line(maxAuthLine, true)
	})
	if r != "" || err != nil {
		return r, err
	}
	s.key = s.handover.submitter.Find(password)
	s.cfg.Hooks.login(s.key != nil)
	if s.key == nil {
		if s.logins++; s.logins == 1 {
			s.cfg.Log.Warn().Stringer("listener", s.listener).Stringer("client", s.addr).Msg("smtpd: a login has failed: there is no such key")
		}
		return replyBadLogin, nil
	}
	s.wire.until = time.Time{}
	return replyLoggedIn, nil
}

// mail begins a message.
func (s *session) mail(arg string) reply {
	switch {
	case s.helo == "" || s.begun:
		return replySequence
	case !s.mayHandIn() && !s.mayLogIn():
		return replyNeedsTLS
	case !s.mayHandIn():
		return replyNeedsLogin
	}
	if s.key != nil { // programs keep their connections for days
		if s.key = s.handover.submitter.Current(s.key); s.key == nil {
			return "421 4.7.0 The API key was taken away"
		}
	}
	path, rest, ok := cutPath(arg, "FROM:")
	if !ok {
		return replySyntax
	}
	p, r := parseMail(rest, s.mayLogIn())
	if r != "" {
		return r
	}
	switch {
	case p.size > uint64(s.cfg.MaxMessageSize): //nolint:gosec // not negative
		return replyTooBig
	case !p.utf8 && !isASCII(path):
		return "550 5.6.7 This sender takes SMTPUTF8"
	}
	if path != "" {
		if path, ok = mailbox(path); !ok {
			return "501 5.1.7 Bad sender address syntax"
		}
	}
	s.begun, s.utf8, s.envelope.from = true, p.utf8, path
	s.body.begin()
	return "250 2.1.0 Ok"
}

// rcpt adds a recipient.
func (s *session) rcpt(arg string) reply {
	if !s.begun || s.chunked {
		return replySequence
	}
	s.tried = true
	path, rest, ok := cutPath(arg, "TO:")
	if !ok {
		return replySyntax
	}
	if param := strings.Trim(rest, " "); param != "" {
		return answer("555 5.5.4", "Unsupported parameter: %s", param)
	}
	if strings.EqualFold(path, "postmaster") { // RFC 5321, 4.1.1.3
		path += "@" + s.cfg.Hostname
	}
	switch to, ok := mailbox(path); {
	case !s.utf8 && !isASCII(path):
		return "553 5.6.7 This recipient takes SMTPUTF8"
	case !ok:
		return "501 5.1.3 Bad recipient address syntax"
	case len(s.envelope.to) >= s.cfg.MaxRecipients:
		return "452 4.5.3 Too many recipients"
	default:
		s.envelope.to = append(s.envelope.to, to)
	}
	return "250 2.1.5 Ok"
}

// noRecipients is why a message cannot be sent now, or "".
func (s *session) noRecipients() reply {
	switch {
	case !s.begun || !s.tried:
		return replySequence
	case len(s.envelope.to) == 0:
		return "554 5.5.1 No valid recipients"
	}
	return ""
}

// data takes a message.
func (s *session) data(arg string) (reply, error) {
	if arg != "" {
		return "501 5.5.4 DATA takes no parameters", nil
	}
	if s.chunked {
		return replySequence, nil
	}
	if r := s.noRecipients(); r != "" {
		return r, nil
	}
	s.wire.say("354 End data with <CR><LF>.<CR><LF>")
	s.limitTime()
	if err := s.body.dotted(s.wire.r); err != nil {
		return "", err
	}
	return s.finish()
}

// limitTime lets the time run in which a message has to be there.
func (s *session) limitTime() {
	if s.wire.until.IsZero() {
		s.wire.until = time.Now().Add(s.cfg.MessageTimeout)
	}
}

// bdat takes a chunk of a message (RFC 3030). It is read also if it cannot be taken, since it comes anyway.
func (s *session) bdat(arg string) (reply, error) {
	size, last, ok := parseChunk(arg)
	if !ok {
		return s.lastly("501 5.5.4 BDAT takes a size") // what follows cannot be told from commands
	}
	r := s.noRecipients()
	if r != "" {
		if !s.begun {
			s.body.begin()
		}
		s.body.fault = r
	}
	s.limitTime()
	if err := s.body.chunk(s.wire.r, size); err != nil {
		return "", err
	}
	switch {
	case last && r == "":
		return s.finish()
	case s.body.fault != "":
		return s.refuse(s.body.fault, last)
	}
	s.chunked = true
	return answer("250 2.0.0", "Ok: %d bytes", size), nil
}

// finish hands over the message that is there, and gives the reply to it: by LMTP one for each recipient (RFC 2033, 4.2).
func (s *session) finish() (reply, error) {
	s.body.finish()
	if s.body.fault == replyBareEnd {
		return s.refuse(replyBareEnd, true)
	}
	// What was accepted before is known to the client before it waits for this one.
	if err := s.wire.flush(); err != nil {
		return "", err
	}
	r := s.handover.give(s.ctx, s.envelope, s.origin(), &s.body)
	s.sayOthers(r)
	if r.accepts() {
		s.refusals = 0
	}
	s.reset()
	return r, nil
}

// sayOthers gives the reply to a message once less than it has recipients, if each of them gets one.
func (s *session) sayOthers(r reply) {
	for i := 1; s.listener.LMTP && i < len(s.envelope.to); i++ {
		s.say(r)
	}
}

// refuse is the reply to a message that is not handed over, at its end or, if last is not set, at a chunk before it. A bare line end
// closes the connection: what follows it may be a command to one who reads it and a message to another.
func (s *session) refuse(r reply, last bool) (reply, error) {
	if len(s.envelope.to) > 0 {
		s.cfg.Hooks.message(r.code(), s.body.size, 0)
	}
	if last {
		s.sayOthers(r)
	}
	s.reset()
	if r == replyBareEnd {
		return "", errBareEnd
	}
	return r, nil
}

// origin is where the message has come from.
func (s *session) origin() origin {
	return origin{
		key: s.key, helo: s.helo, addr: s.addr,
		protocol: protocol(s.listener.LMTP, s.extended, s.utf8, s.secure, s.key != nil),
	}
}
