package webhook

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/mailpouch/mailpouch/internal/events"
)

// payload is what is posted of an event, in the manner of Resend's events: programs that read those find what they look for. All
// fields are always there, and the same event has the same bytes at every try of every worker.
type payload struct {
	Type      events.Type `json:"type"`
	CreatedAt string      `json:"created_at"` // Resend's name
	Timestamp string      `json:"timestamp"`  // that of Standard Webhooks: when it happened, not when it is posted
	Data      payloadData `json:"data"`
}

type payloadData struct {
	EmailID   string   `json:"email_id"`
	MessageID string   `json:"message_id"`
	To        []string `json:"to"` // one: events are those of a recipient
	Queue     string   `json:"queue"`
	Mailer    string   `json:"mailer"`
	Mailing   string   `json:"mailing"`
	Tags      []string `json:"tags"`
	Reply     string   `json:"reply"`
	Tries     int      `json:"tries"`
}

func encode(e events.Event) ([]byte, error) {
	at := e.At.UTC().Format(time.RFC3339Nano)
	p := payload{e.Type, at, at, payloadData{
		EmailID: e.EmailID, MessageID: e.MessageID, To: []string{e.Recipient},
		Queue: e.Queue, Mailer: e.Mailer, Mailing: e.Mailing, Tags: append([]string{}, e.Tags...), Reply: e.Reply, Tries: e.Tries,
	}}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // <ann@example.com> is read by people too
	if err := enc.Encode(p); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
