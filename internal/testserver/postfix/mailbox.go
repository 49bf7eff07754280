package postfix

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Message is one delivery. Its recipient is as the client wrote it. Received also shows
// the client's certificate. In Raw an empty line of Postfix's comes before a message
// that does not begin with a header.
type Message = testserver.Message

func (s *Server) mailbox() testserver.Maildir {
	fields := []string{"Return-Path", "X-Original-To", "Delivered-To", "Received"}
	if s.opts.Verifier != "" {
		fields = slices.Insert(fields, len(fields)-1, "Authentication-Results")
	}
	return testserver.Maildir{Dir: s.path("mail"), Fields: fields}
}

// Messages returns what has been delivered so far, oldest first. Two that were
// delivered at the same time may be in either order.
func (s *Server) Messages() []Message {
	s.t.Helper()
	messages, err := s.mailbox().Messages()
	if err != nil {
		s.t.Fatalf("postfixtest: mailbox: %v", err)
	}
	return messages
}

// Wait waits until at least n messages are delivered.
func (s *Server) Wait(ctx context.Context, n int) error {
	err := testserver.Poll(ctx, nil, func() error {
		got, err := s.mailbox().Count()
		if err == nil && got < n {
			err = fmt.Errorf("%d of %d messages", got, n)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("postfixtest: wait: %w", err)
	}
	return nil
}

// Drain waits until everything that was accepted is delivered. When the clients have
// ended, nothing more comes after it: time to count what came twice.
func (s *Server) Drain(ctx context.Context) error {
	empty := false
	err := testserver.Poll(ctx, nil, func() error {
		was := empty
		empty = false
		// A message moves from left to right; it is never in none of them. Once, when Postfix starts, it moves back.
		for _, queue := range []string{"incoming", "active", "deferred"} {
			messages, err := testserver.List(s.path("queue", queue))
			if err != nil {
				return err
			}
			if len(messages) > 0 {
				return fmt.Errorf("%d messages are in the queue %s", len(messages), queue)
			}
		}
		if empty = true; !was {
			return errors.New("the queues have been empty at one look only")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("postfixtest: drain: %w", err)
	}
	return nil
}
