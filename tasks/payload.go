package tasks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// TaskType is the asynq type of a task that carries a message.
const TaskType = "mailpouch:message"

// payloadVersion changes when an older worker could not read a payload rightly.
// Workers are upgraded before producers.
const payloadVersion = 1

// payload is what a task carries: the message and what is true of it in the queue. It
// is one JSON object, with the message last. It never holds credentials.
type payload struct {
	slip
	Message *mailer.EmailMessage

	headers map[string]string // of the task: the trace that it belongs to
}

// slip is the payload without its message.
type slip struct {
	Version    int        `json:"version"`
	Using      string     `json:"using,omitempty"`    // the name of the mailer, "" for the default one
	DueAt      time.Time  `json:"due_at"`             // when it was to be sent first; its age counts from here
	Deadline   *time.Time `json:"deadline,omitempty"` // not sent after this
	AtMostOnce bool       `json:"at_most_once,omitempty"`
	KeepResult bool       `json:"keep_result,omitempty"` // the task has a retention
	Recipients []string   `json:"recipients,omitempty"`  // only these of the message's, if not empty
	Refused    string     `json:"refused,omitempty"`     // why Recipients were refused for good: a dead letter
	Blobs      []blob     `json:"blobs,omitempty"`       // the attachments and bodies whose content is not in the message
	BlobRef    string     `json:"blob_ref,omitempty"`    // with Blobs: the token of this task's references to them
	Digest     string     `json:"digest,omitempty"`      // of what was handed over, if that is to be once
	Spent      int        `json:"spent,omitempty"`       // tries that the message had in another task before
}

// messageKey parts the slip from the message. It cannot stand inside a string, where
// quotes are escaped, and no object in a slip has such a key: the first one is the right one.
var messageKey = []byte(`,"message":`)

func (p *payload) encode() ([]byte, error) { return p.append(nil) }

// append appends the payload to data.
func (p *payload) append(data []byte) ([]byte, error) {
	p.Version = payloadVersion
	m := p.lean()
	data = slices.Grow(data, 512+len(m.Body)*17/16)
	data, err := p.slip.append(data)
	if err != nil {
		return nil, err
	}
	data = append(data, messageKey...)
	if data, err = m.AppendJSON(data); err != nil {
		return nil, err
	}
	return append(data, '}'), nil
}

// append appends the slip to data, without its closing brace.
func (s *slip) append(data []byte) ([]byte, error) {
	if s.isPlain() {
		data = append(data, plainSlip...)
		return append(s.DueAt.AppendFormat(data, time.RFC3339Nano), '"'), nil
	}
	head, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(data, head[:len(head)-1]...), nil
}

var errNoMessage = errors.New("no message at its end")

// decodePayload reads slip and message apart, so that the message is read once.
func decodePayload(data []byte) (*payload, error) {
	data = bytes.TrimSpace(data)
	at := bytes.Index(data, messageKey)
	if at < 0 || data[len(data)-1] != '}' {
		return nil, checkVersion(data, errNoMessage)
	}
	p := &payload{Message: new(mailer.EmailMessage)}
	if !p.decodePlain(data[:at]) {
		head := append(bytes.Clone(data[:at]), '}')
		decoder := json.NewDecoder(bytes.NewReader(head))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&p.slip); err != nil {
			return nil, checkVersion(head, err)
		}
		if p.Version != payloadVersion {
			return nil, checkVersion(head, nil)
		}
	}
	if err := p.Message.UnmarshalJSON(data[at+len(messageKey) : len(data)-1]); err != nil {
		return nil, fmt.Errorf("tasks: payload: %w", err)
	}
	if err := p.checkBlobs(); err != nil {
		return nil, err
	}
	return p, nil
}

// plainSlip is how the slip of most payloads begins, and the time is all that is left of it.
const plainSlip = `{"version":1,"due_at":"`

// isPlain says whether a slip says no more than when the message is due, which is in UTC and
// in this age.
func (s *slip) isPlain() bool {
	return s.Using == "" && s.Deadline == nil && !s.AtMostOnce && !s.KeepResult && s.Recipients == nil && s.Refused == "" &&
		s.Blobs == nil && s.BlobRef == "" && s.Digest == "" && s.Spent == 0 && s.DueAt.Location() == time.UTC && s.DueAt.Year() < 10000
}

// decodePlain reads a slip that says no more than when the message is due, which is most
// of them, without the cost of reading just any JSON. It is false for others.
func (s *slip) decodePlain(head []byte) bool {
	rest, ok := bytes.CutPrefix(head, []byte(plainSlip))
	due, ok2 := bytes.CutSuffix(rest, []byte(`"`))
	if !ok || !ok2 || s.DueAt.UnmarshalText(due) != nil {
		return false
	}
	s.Version = payloadVersion
	return true
}

// decodeTask is decodePayload of a task that has headers.
func decodeTask(data []byte, headers map[string]string) (*payload, error) {
	p, err := decodePayload(data)
	if p != nil {
		p.headers = headers
	}
	return p, err
}

// checkVersion tells a payload of another version from one that is broken: what is
// unknown in it is then no surprise.
func checkVersion(data []byte, err error) error {
	var v struct {
		Version int `json:"version"`
	}
	if wrong := json.Unmarshal(data, &v); wrong != nil {
		return fmt.Errorf("tasks: payload: %s", unreadable(wrong))
	}
	if v.Version != payloadVersion {
		return fmt.Errorf("tasks: payload of version %d, this worker reads version %d: upgrade it, then replay the task",
			v.Version, payloadVersion)
	}
	return fmt.Errorf("tasks: payload: %s", unreadable(err))
}

// unreadable says what is wrong with a payload, and repeats nothing of it: whatever it is, it
// may be a message.
func unreadable(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errNoMessage):
		return err.Error()
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON, from octet %d on", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("%s: not what it should be, a %s", kind.Field, kind.Type)
	}
	return "an unknown field, or a time that is none, before the message"
}
