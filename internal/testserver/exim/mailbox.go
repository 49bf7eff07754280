package exim

import (
	"path/filepath"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Message is one delivery. Its recipient's domain is in small letters, and the local
// part is without quotes.
type Message = testserver.Message

// Messages delivers what has been accepted so far and returns all that was delivered
// since Start. Exim need not be running.
func (s *Server) Messages() []Message {
	s.t.Helper()
	// It forces deliveries, and ends when the last is done.
	if out, err := s.exim("-qff").CombinedOutput(); err != nil {
		s.t.Fatalf("eximtest: queue run: %v: %s", err, out)
	}
	if left, err := filepath.Glob(s.path("spool/input/*-H")); len(left) > 0 || err != nil {
		s.t.Fatalf("eximtest: %d messages are not delivered: %v", len(left), err)
	}
	mailbox := testserver.Maildir{Dir: s.path("mail"), Fields: []string{"Return-Path", "Delivered-To", "Received"}}
	messages, err := mailbox.Messages()
	if err != nil {
		s.t.Fatalf("eximtest: mailbox: %v", err)
	}
	return messages
}
