package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Message is one delivery: a message for one recipient.
type Message struct {
	From string // envelope sender, "" for the null sender
	To   string // envelope recipient, as the client wrote it

	// Received is the header field that Postfix added. It tells whether the client
	// used TLS (and its certificate) and as whom it was logged in.
	Received string

	// Raw is what the client sent, byte for byte, its line ends being CRLF.
	// Postfix puts an empty line before a message that does not begin with a header.
	Raw []byte
}

// Messages returns what has been delivered so far, oldest first. Two that were
// delivered at the same time may be in either order.
func (s *Server) Messages() []Message {
	s.t.Helper()
	files, err := s.delivered()
	if err != nil {
		s.t.Fatalf("postfixtest: mailbox: %v", err)
	}
	messages := make([]Message, 0, len(files))
	for _, f := range files {
		raw, err := os.ReadFile(f.path)
		if err != nil {
			s.t.Fatalf("postfixtest: mailbox: %v", err)
		}
		m, err := parse(raw)
		if err != nil {
			s.t.Fatalf("postfixtest: mailbox: %s: %v", filepath.Base(f.path), err)
		}
		messages = append(messages, m)
	}
	return messages
}

// Wait waits until at least n messages are delivered.
func (s *Server) Wait(ctx context.Context, n int) error {
	got := 0
	err := s.poll(ctx, "delivery", func() (bool, error) {
		entries, err := list(s.path("mail", "new"))
		got = len(entries)
		return got >= n, err
	})
	if err != nil {
		return fmt.Errorf("postfixtest: %d of %d messages: %w", got, n, err)
	}
	return nil
}

// Drain waits until everything that was accepted is delivered. When the clients have
// ended, nothing more comes after it: time to count what came twice.
func (s *Server) Drain(ctx context.Context) error {
	err := s.poll(ctx, "an empty queue", func() (bool, error) {
		// A message moves from left to right; it is never in none of them.
		for _, queue := range []string{"incoming", "active", "deferred"} {
			entries, err := list(s.path("queue", queue))
			if len(entries) > 0 || err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("postfixtest: %w", err)
	}
	return nil
}

// list lists a directory; one that is not there yet is empty.
func list(dir string) ([]string, error) {
	d, err := os.Open(dir) //nolint:gosec // in our own directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	return d.Readdirnames(-1)
}

type file struct {
	path string
	time time.Time
}

func (s *Server) delivered() ([]file, error) {
	dir := s.path("mail", "new")
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	files := make([]file, 0, len(entries))
	for _, name := range entries {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: filepath.Join(dir, name), time: info.ModTime()})
	}
	slices.SortFunc(files, func(a, b file) int { return a.time.Compare(b.time) })
	return files, nil
}

// parse takes off what Postfix put in front: exactly one of each of these fields, in
// this order, for the message may begin with fields of the same names.
func parse(raw []byte) (Message, error) {
	var m Message
	for _, field := range []struct {
		name string
		to   *string
	}{
		{name: "Return-Path", to: &m.From},
		{name: "X-Original-To", to: &m.To},
		{name: "Delivered-To", to: new(string)},
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
	prefix := []byte(name + ": ")
	if !bytes.HasPrefix(raw, prefix) {
		return "", nil, fmt.Errorf("no %s where Postfix puts it: %.80q", name, raw)
	}
	end := 0
	for {
		i := bytes.IndexByte(raw[end:], '\n')
		if i < 0 {
			return "", nil, fmt.Errorf("%s does not end", name)
		}
		end += i + 1
		if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
			return string(raw[len(prefix) : end-1]), raw[end:], nil
		}
	}
}
