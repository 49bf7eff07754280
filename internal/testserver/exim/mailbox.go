package exim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Message is one delivery: a message for one recipient.
type Message struct {
	From string // envelope sender, "" for the null sender
	To   string // envelope recipient, its domain in small letters, its local part without quotes

	// Received is the header field that Exim added. It tells by its protocol
	// ("esmtps") whether the client used TLS.
	Received string

	// Raw is what the client sent, byte for byte, its line ends being CRLF.
	Raw []byte
}

// Messages delivers what has been accepted so far and returns all that was delivered
// since Start, in any order. Exim need not be running.
func (s *Server) Messages() []Message {
	s.t.Helper()
	// It forces deliveries, and ends when the last is done.
	if out, err := s.exim("-qff").CombinedOutput(); err != nil {
		s.t.Fatalf("eximtest: queue run: %v: %s", err, out)
	}
	if left, err := filepath.Glob(s.path("spool/input/*-H")); len(left) > 0 || err != nil {
		s.t.Fatalf("eximtest: %d messages are not delivered: %v", len(left), err)
	}
	files, err := filepath.Glob(s.path("mail/new/*"))
	if err != nil {
		s.t.Fatalf("eximtest: mailbox: %v", err)
	}
	messages := make([]Message, 0, len(files))
	for _, f := range files {
		raw, err := os.ReadFile(f) //nolint:gosec // in our own directory
		if err != nil {
			s.t.Fatalf("eximtest: mailbox: %v", err)
		}
		m, err := parse(raw)
		if err != nil {
			s.t.Fatalf("eximtest: mailbox: %s: %v", filepath.Base(f), err)
		}
		messages = append(messages, m)
	}
	return messages
}

// parse takes off what Exim put in front: exactly one of each of these fields, in
// this order, for the message may begin with fields of the same names.
func parse(raw []byte) (Message, error) {
	var m Message
	for _, field := range []struct {
		name string
		to   *string
	}{
		{name: "Return-Path", to: &m.From},
		{name: "Delivered-To", to: &m.To},
		{name: "Received", to: &m.Received},
	} {
		value, rest, err := cutField(raw, field.name)
		if err != nil {
			return Message{}, err
		}
		*field.to, raw = value, rest
	}
	m.From = strings.TrimSuffix(strings.TrimPrefix(m.From, "<"), ">")
	m.Raw = bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))
	return m, nil
}

// cutField splits a header field, with its folded lines, from what follows.
func cutField(raw []byte, name string) (value string, rest []byte, err error) {
	value, found := strings.CutPrefix(string(raw), name+": ")
	if !found {
		return "", nil, fmt.Errorf("no %s where Exim puts it: %.80q", name, raw)
	}
	for end := 0; ; {
		i := strings.IndexByte(value[end:], '\n')
		if i < 0 {
			return "", nil, fmt.Errorf("%s does not end", name)
		}
		end += i + 1
		if end == len(value) || value[end] != ' ' && value[end] != '\t' {
			return value[:end-1], []byte(value[end:]), nil
		}
	}
}
