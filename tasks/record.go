package tasks

import (
	"encoding/json"
	"fmt"

	"github.com/mailpouch/mailpouch/mailer"
)

// record is an entry: enough to end the task as it should have ended.
type record struct {
	Reply   string    `json:"reply"`
	Refused []refusal `json:"refused,omitempty"`
	Moved   bool      `json:"moved,omitempty"` // not sent: it goes on as a task of its own
	Rest    *rest     `json:"rest,omitempty"`  // with Moved: as which one, until that is in Redis
}

// rest is how a message goes on that leaves its mass task.
type rest struct {
	Spent     int    `json:"spent,omitempty"`   // tries so far
	Refused   string `json:"refused,omitempty"` // why it is a dead letter
	Forwarded bool   `json:"forwarded,omitempty"`
}

type refusal struct {
	Recipient string `json:"recipient"`
	Permanent bool   `json:"permanent"`
	Code      int    `json:"code"`
	Enhanced  string `json:"enhanced,omitempty"`
	Text      string `json:"text"`
}

func encodeRecord(r mailer.Result) (string, error) {
	rec := record{Reply: r.Reply}
	for _, e := range r.Refused {
		rec.Refused = append(rec.Refused, refusal{e.Recipient, e.Class == mailer.Permanent, e.Code, e.Enhanced, e.Text})
	}
	data, err := json.Marshal(rec)
	return string(data), err
}

// outcomeOf is how a message ends whose record is in the ledger.
func outcomeOf(data string) (outcome, error) {
	var rec record
	if err := json.Unmarshal([]byte(data), &rec); err != nil {
		return outcome{again: true}, fmt.Errorf("tasks: ledger: %w", err)
	}
	if rec.Moved {
		return outcome{moved: true, rest: rec.Rest}, nil
	}
	r := mailer.Result{Reply: rec.Reply}
	for _, f := range rec.Refused {
		class := mailer.Temporary
		if f.Permanent {
			class = mailer.Permanent
		}
		r.Refused = append(r.Refused, &mailer.SendError{
			Class: class, Step: mailer.StepRcpt, Recipient: f.Recipient, Code: f.Code, Enhanced: f.Enhanced, Text: f.Text,
		})
	}
	return outcome{result: r, again: true}, nil
}
