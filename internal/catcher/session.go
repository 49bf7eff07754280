package catcher

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Step is a point at which Config.Decide is asked.
type Step struct {
	Command    string   // "MAIL"; "RCPT", for each recipient; "DATA", when the whole message is there
	Connection int      // 1 for the first
	From       string   // envelope sender
	To         []string // at RCPT the recipient in question, at DATA all that were accepted
	Raw        []byte   // at DATA; it must not be changed
}

// session is one connection: one message at a time, from MAIL to the reply.
type session struct {
	server   *Server
	number   int
	tls      bool
	username string

	// The lock guards the envelope: with BDAT the message is read by another goroutine
	// than the one that reads commands, and RSET may come any time.
	mu   sync.Mutex
	from string
	to   []string
}

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	_, secure := c.TLSConnectionState()
	return &session{server: s, number: number(c.Conn()), tls: secure}, nil
}

func number(c net.Conn) int {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*conn).number
}

func (s *session) decide(step Step) error {
	if s.server.cfg.Decide == nil {
		return nil
	}
	step.Connection = s.number
	err := s.server.cfg.Decide(s.server.ctx, step)
	if err == nil {
		return nil
	}
	s.server.store.refuse()
	if reply, ok := err.(*smtp.SMTPError); ok { //nolint:errorlint // a wrapped reply has a text of its own to say
		return reply
	}
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: err.Error()}
}

// Mail begins a message (smtp.Session).
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	s.from, s.to = from, nil
	s.mu.Unlock()
	return s.decide(Step{Command: "MAIL", From: from})
}

// Rcpt adds a recipient (smtp.Session).
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	from, _ := s.envelope()
	if err := s.decide(Step{Command: "RCPT", From: from, To: []string{to}}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = append(s.to, to)
	return nil
}

// Data receives the message itself (smtp.Session).
func (s *session) Data(r io.Reader) error {
	from, to := s.envelope()
	raw, err := io.ReadAll(r)
	if err != nil {
		s.server.store.refuse()
		return err
	}
	if err := s.decide(Step{Command: "DATA", From: from, To: to, Raw: raw}); err != nil {
		return err
	}
	s.server.accept(Message{
		Connection: s.number, Time: time.Now(),
		From: from, To: to, Username: s.username, TLS: s.tls, Raw: raw,
	})
	return nil
}

func (s *session) envelope() (from string, to []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from, slices.Clone(s.to)
}

// Reset forgets the message that was begun (smtp.Session).
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.to = "", nil
}

// Logout is called when the connection ends (smtp.Session).
func (s *session) Logout() error { return nil }

// accept stores and reports a message under one lock, to keep the order.
func (s *Server) accept(m Message) {
	s.reports.Lock()
	defer s.reports.Unlock()
	m = s.store.number(m)
	if s.cfg.OnMessage != nil {
		s.cfg.OnMessage(m)
	}
	s.store.add(m)
}
