package testserver

import (
	"bytes"
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
	To   string // envelope recipient

	// Received is the header field that the server added. It tells whether the
	// client used TLS and as whom it was logged in.
	Received string

	// AuthResults is the field Authentication-Results that a milter of the server added, if it has one.
	AuthResults string

	// Raw is what the client sent, byte for byte, its line ends being CRLF.
	Raw []byte
}

// Maildir is a mailbox that a server delivers into.
type Maildir struct {
	Dir string

	// Fields are the header fields that the server puts before each message, in this
	// order: the envelope's sender, its recipient, any others, and Received.
	Fields []string
}

// Count is how many messages have been delivered so far.
func (d Maildir) Count() (int, error) {
	names, err := List(d.new())
	return len(names), err
}

// Messages returns what has been delivered so far, oldest first. Two that were
// delivered at the same time may be in either order.
func (d Maildir) Messages() ([]Message, error) {
	files, err := d.files()
	if err != nil {
		return nil, err
	}
	messages := make([]Message, len(files))
	for i, f := range files {
		raw, err := os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		if messages[i], err = d.parse(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(f.path), err)
		}
	}
	return messages, nil
}

func (d Maildir) new() string { return filepath.Join(d.Dir, "new") }

type file struct {
	path string
	time time.Time
}

func (d Maildir) files() ([]file, error) {
	names, err := List(d.new())
	if err != nil {
		return nil, err
	}
	files := make([]file, len(names))
	for i, name := range names {
		path := filepath.Join(d.new(), name)
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		files[i] = file{path: path, time: info.ModTime()}
	}
	slices.SortFunc(files, func(a, b file) int { return a.time.Compare(b.time) })
	return files, nil
}

// List lists a directory; one that is not there yet is empty.
func List(dir string) ([]string, error) {
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

// parse takes off what the server put in front: exactly one of each field, in their
// order, because the message may begin with fields of the same names.
func (d Maildir) parse(raw []byte) (Message, error) {
	values := make([]string, len(d.Fields))
	for i, name := range d.Fields {
		var err error
		if values[i], raw, err = cutField(raw, name); err != nil {
			return Message{}, err
		}
	}
	m := Message{
		From:     strings.TrimSuffix(strings.TrimPrefix(values[0], "<"), ">"),
		To:       values[1],
		Received: values[len(values)-1],
		Raw:      bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")),
	}
	if i := slices.Index(d.Fields, "Authentication-Results"); i >= 0 {
		m.AuthResults = values[i]
	}
	return m, nil
}

// cutField splits a header field, with its folded lines, from what follows.
func cutField(raw []byte, name string) (value string, rest []byte, err error) {
	body, found := bytes.CutPrefix(raw, []byte(name+": "))
	if !found {
		return "", nil, fmt.Errorf("no %s where the server puts it: %.80q", name, raw)
	}
	for end := 0; ; {
		i := bytes.IndexByte(body[end:], '\n')
		if i < 0 {
			return "", nil, fmt.Errorf("%s does not end", name)
		}
		end += i + 1
		if end == len(body) || body[end] != ' ' && body[end] != '\t' {
			return string(body[:end-1]), body[end:], nil
		}
	}
}
