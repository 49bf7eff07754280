// Package hooks is an example of what a worker of your own can do with each message right before it is sent, and when it has ended:
// it sends nothing to who has asked for that, says in a header field which system a message is from, and keeps books of what became
// of it.
//
// The worker is in worker. Copy both and change what is different for you.
package hooks

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Suppressed are addresses that get no mail, in lower case.
type Suppressed map[string]bool

// ReadSuppressed reads one address a line.
func ReadSuppressed(r io.Reader) (Suppressed, error) {
	list, lines := Suppressed{}, bufio.NewScanner(r)
	for lines.Scan() {
		if addr := strings.TrimSpace(lines.Text()); addr != "" {
			list[strings.ToLower(addr)] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("hooks: suppressed addresses: %w", err)
	}
	return list, nil
}

// BeforeSend leaves the recipients out who are suppressed, and stops a message to nobody else. It asks for the envelope: there are
// blind copies too, and a message that is tried again for some of its recipients has only these.
func (s Suppressed) BeforeSend(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
	envelope, err := m.Message.Envelope()
	if err != nil {
		return nil, err
	}
	left := make([]string, 0, len(envelope.To))
	for _, addr := range envelope.To {
		if !s[strings.ToLower(addr)] {
			left = append(left, addr)
		}
	}
	switch len(left) {
	case len(envelope.To):
		return m.Message, nil
	case 0:
		return nil, tasks.Stop("all recipients have asked for no more mail")
	}
	return m.Message.WithRecipients(left), nil
}

// System is a name that each message gets in the field X-System.
type System string

// BeforeSend adds the field, to a copy of the message: of a finished one too, in front of what it has.
func (s System) BeforeSend(_ context.Context, m tasks.Outgoing) (*mailer.EmailMessage, error) {
	if len(m.Message.Raw) > 0 {
		return m.Message.WithTrace(mailer.Field{Name: "X-System", Value: string(s)}), nil
	}
	changed := *m.Message
	changed.Headers = maps.Clone(changed.Headers) // the map is the message's too
	if changed.Headers == nil {
		changed.Headers = map[string]string{}
	}
	changed.Headers["X-System"] = string(s)
	return &changed, nil
}

// Books has a line of JSON for each message that has ended.
type Books struct {
	mu  sync.Mutex
	out *json.Encoder
}

// NewBooks returns books that are written to w.
func NewBooks(w io.Writer) *Books { return &Books{out: json.NewEncoder(w)} }

// Entry is a line of Books.
type Entry struct {
	Task       string   `json:"task"`
	MessageID  string   `json:"message_id"`
	Recipients []string `json:"recipients"`
	Action     string   `json:"action"`
	Reason     string   `json:"reason,omitempty"`
}

// Outcome is for tasks.Observer. A worker calls it from several goroutines, and for each try: one that comes again is no end.
func (b *Books) Outcome(o tasks.Outcome) {
	if o.Action == tasks.ActionRetry || o.Action == tasks.ActionForwarded {
		return
	}
	e := Entry{Task: o.TaskID, MessageID: o.MessageID, Recipients: o.Recipients, Action: string(o.Action)}
	if o.Err != nil {
		e.Reason = o.Err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.out.Encode(e) // a full disk stops no mail
}
