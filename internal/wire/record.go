package wire

import (
	"encoding/json"
	"fmt"

	"github.com/mailpouch/mailpouch/mailer"
)

// Record is what the ledger has of a message, in the field FieldSent of its task: enough to
// end the task as it should have ended.
type Record struct {
	Reply   string     `json:"reply"`
	Refused []Refusal  `json:"refused,omitempty"`
	At      int64      `json:"at,omitempty"`      // when it was accepted, in seconds since 1970
	Retried int        `json:"retried,omitempty"` // tries before that one
	Moved   bool       `json:"moved,omitempty"`   // not sent: it goes on as a task of its own
	Rest    *Remainder `json:"rest,omitempty"`    // with Moved: as which one, until that is in Redis
}

// Remainder is how a message goes on that leaves its bulk task.
type Remainder struct {
	Spent     int    `json:"spent,omitempty"`   // tries so far
	Refused   string `json:"refused,omitempty"` // why it is a dead letter
	Forwarded bool   `json:"forwarded,omitempty"`
}

// Refusal is a recipient who was refused though the message was accepted for others.
type Refusal struct {
	Recipient string `json:"recipient"`
	Permanent bool   `json:"permanent"`
	Code      int    `json:"code"`
	Enhanced  string `json:"enhanced,omitempty"`
	Text      string `json:"text"`
}

// NewRecord is the record of a message that was accepted.
func NewRecord(r mailer.Result) Record {
	rec := Record{Reply: r.Reply}
	for _, e := range r.Refused {
		rec.Refused = append(rec.Refused, Refusal{e.Recipient, e.Class == mailer.Permanent, e.Code, e.Enhanced, e.Text})
	}
	return rec
}

// Encode returns the record as the ledger keeps it.
func (r Record) Encode() (string, error) {
	data, err := json.Marshal(r)
	return string(data), err
}

// DecodeRecord reads a record.
func DecodeRecord(data string) (Record, error) {
	var r Record
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return r, fmt.Errorf("tasks: ledger: %w", err)
	}
	return r, nil
}

// Result is the result that NewRecord was given, as far as the record has it.
func (r Record) Result() mailer.Result {
	result := mailer.Result{Reply: r.Reply}
	for _, f := range r.Refused {
		class := mailer.Temporary
		if f.Permanent {
			class = mailer.Permanent
		}
		result.Refused = append(result.Refused, &mailer.SendError{
			Class: class, Step: mailer.StepRcpt, Recipient: f.Recipient, Code: f.Code, Enhanced: f.Enhanced, Text: f.Text,
		})
	}
	return result
}

// Result is what a completed task shows while its retention lasts; for a bulk task
// that is a list of them.
type Result struct {
	Reply   string   `json:"reply"`
	Refused []string `json:"refused,omitempty"`
}

// NewResult is what is kept of a result.
func NewResult(of mailer.Result) Result {
	r := Result{Reply: of.Reply}
	for _, e := range of.Refused {
		r.Refused = append(r.Refused, e.Error())
	}
	return r
}
