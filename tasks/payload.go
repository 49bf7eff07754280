package tasks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// TaskType is the asynq type of a task that carries a message.
const TaskType = "mailpouch:message"

// payloadVersion changes when an older worker could not read a payload rightly.
// Workers are upgraded before producers.
const payloadVersion = 1

// payload is what a task carries: the message and what is true of it in the queue.
// It never holds credentials.
type payload struct {
	Version    int                  `json:"version"`
	DueAt      time.Time            `json:"due_at"`             // when it was to be sent first; its age counts from here
	Deadline   *time.Time           `json:"deadline,omitempty"` // not sent after this
	AtMostOnce bool                 `json:"at_most_once,omitempty"`
	KeepResult bool                 `json:"keep_result,omitempty"` // the task has a retention
	Recipients []string             `json:"recipients,omitempty"`  // only these of the message's, if not empty
	Refused    string               `json:"refused,omitempty"`     // why Recipients were refused for good: a dead letter
	Message    *mailer.EmailMessage `json:"message"`
}

func (p *payload) encode() ([]byte, error) {
	p.Version = payloadVersion
	return json.Marshal(p)
}

func decodePayload(data []byte) (*payload, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("tasks: payload: %w", err)
	}
	if version.Version != payloadVersion {
		return nil, fmt.Errorf("tasks: payload of version %d, this worker reads version %d: upgrade it, then replay the task",
			version.Version, payloadVersion)
	}
	var p payload
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return nil, fmt.Errorf("tasks: payload: %w", err)
	}
	if p.Message == nil {
		return nil, fmt.Errorf("tasks: payload: no message")
	}
	return &p, nil
}
