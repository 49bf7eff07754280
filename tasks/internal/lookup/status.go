package lookup

import (
	"cmp"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// MessageState is where a message is, or what became of it.
type MessageState string

// The states. Package tasks says what each means.
const (
	StateWaiting   MessageState = "waiting"
	StateScheduled MessageState = "scheduled"
	StatePaused    MessageState = "paused"
	StateRetry     MessageState = "retry"
	StateInHand    MessageState = "in hand"
	StateOnWire    MessageState = "on the wire"
	StateSent      MessageState = "sent"
	StateSkipped   MessageState = "skipped"
	StateSilent    MessageState = "failed silently"
	StateCancelled MessageState = "cancelled"
	StateDead      MessageState = "dead letter"
	StateReplayed  MessageState = "replayed"
	StateDeleted   MessageState = "deleted"
	StateSeveral   MessageState = "several"
	StateUnknown   MessageState = "unknown"
)

// Ended reports whether nothing more will be done about the message by itself.
func (s MessageState) Ended() bool {
	switch s {
	case StateWaiting, StateScheduled, StatePaused, StateRetry, StateInHand, StateOnWire, StateSeveral, StateUnknown:
		return false
	}
	return true
}

// Status is what is known of a message. What is not known is zero. Addresses are masked.
type Status struct {
	State     MessageState `json:"state"`
	ID        string       `json:"id,omitempty"` // as Enqueue has returned it
	MessageID string       `json:"message_id,omitempty"`
	Queue     string       `json:"queue,omitempty"`  // as the producer named it
	Mailer    string       `json:"mailer,omitempty"` // "" for the default one
	Member    string       `json:"member,omitempty"` // the mailer that it went with, if its own has members
	Mailing   string       `json:"mailing,omitempty"`
	Tags      []string     `json:"tags,omitempty"`

	// To are the recipients: the first ten of as many as Recipients says.
	To         []string `json:"to,omitempty"`
	Recipients int      `json:"recipients,omitempty"`

	Due   time.Time `json:"due,omitzero"` // when it was to be sent first; of what is to be tried again, when that is
	At    time.Time `json:"at,omitzero"`  // when it has ended: of what was sent with others in one task it may come a second later
	Tries int       `json:"tries,omitempty"`

	// Reply is the relay's reply to a message that was sent. Of one that was not it is why: of StateRetry the last error. Of
	// StateReplayed it is the ID of the new task.
	Reply string `json:"reply,omitempty"`

	// Parts are the messages of a task of many, or what has come of the message as tasks of their own: the recipients that
	// were refused, and what a replay has made of it.
	Parts []Status `json:"parts,omitempty"`

	// Kept is how long the history has what has ended, and Since from when on it is complete: it has not kept longer, or the
	// oldest records had to go (History.Size). Both are zero if no history is kept. They are set in what Status returns,
	// not in Parts.
	Kept  time.Duration `json:"-"`
	Since time.Time     `json:"since,omitzero"`
}

// compareIDs puts the messages of a task in their order.
func compareIDs(a, b string) int {
	taskA, indexA, _ := wire.SplitID(a)
	taskB, indexB, _ := wire.SplitID(b)
	return cmp.Or(cmp.Compare(taskA, taskB), cmp.Compare(indexA, indexB), cmp.Compare(a, b))
}

// ofParts says of a task of many messages what all of them have in common.
func (s *Status) ofParts() {
	first := s.Parts[0]
	s.State, s.Queue, s.Mailer, s.Mailing = first.State, first.Queue, first.Mailer, first.Mailing
	for _, p := range s.Parts[1:] {
		if p.State != s.State {
			s.State = StateSeveral
		}
	}
}

// taskStatus is the status of a message of a task, whose fields in the record end in suffix. Its state is empty if the message has
// left the task.
func taskStatus(place wire.QueueName, info *asynq.TaskInfo, fields map[string]string, id, suffix string, payload []byte) Status {
	s := Status{ID: id, Queue: place.Queue, Mailer: place.Mailer, Tries: info.Retried, Reply: redact.Reason(info.LastErr, false)}
	tried := 1 // by the task itself, if it has failed
	if p, err := wire.Decode(payload, nil); err == nil {
		if p.Refused != "" && p.Spent > 0 {
			tried = 0 // it was refused in another task; this one was not tried
		}
		s.MessageID, s.Mailing, s.Tags, s.Due = p.Message.MessageID, p.Mailing, p.Tags, p.DueAt
		s.Tries += p.Spent
		message := p.Message
		if len(p.Recipients) > 0 {
			message = message.WithRecipients(p.Recipients)
		}
		to := history.Recipients(message)
		s.Recipients, s.To = len(to), redact.View{}.Mailboxes(to)
	}
	sent, wasSent := fields[wire.FieldSent+suffix]
	if wasSent {
		record, err := wire.DecodeRecord(sent)
		if err == nil && record.Moved {
			return Status{}
		}
		s.State, s.Reply = StateSent, redact.Reason(record.Reply, false)
		s.Tries++
		if info.State == asynq.TaskStateCompleted {
			s.At = info.CompletedAt.UTC()
		}
		return s
	}
	onWire := fields[wire.FieldWire+suffix]
	switch {
	case fields[wire.FieldCancelled+suffix] != "":
		s.State, s.Reply = StateCancelled, ""
		return s
	case info.State == asynq.TaskStateActive && onWire != "" && onWire != wire.Decided:
		s.State = StateOnWire
		return s
	}
	switch info.State {
	case asynq.TaskStateActive:
		s.State = StateInHand
	case asynq.TaskStateScheduled:
		if info.NextProcessAt.Unix() == wire.AsideUntil {
			s.State = StatePaused
			break
		}
		s.State, s.Due = StateScheduled, info.NextProcessAt.UTC()
	case asynq.TaskStateRetry:
		s.State, s.Due = StateRetry, info.NextProcessAt.UTC()
	case asynq.TaskStateArchived:
		s.State, s.At = StateDead, info.LastFailedAt.UTC()
		if info.LastFailedAt.IsZero() {
			s.At, tried = time.Time{}, 0
		}
		s.Tries += tried
		s.Reply = redact.Reason(find.Reason(fields[wire.FieldReason], info.LastErr), false)
	case asynq.TaskStateCompleted:
		s.State, s.At = StateSent, info.CompletedAt.UTC()
		if result, ok := wire.ReadResult(info.Result); ok {
			s.Reply = redact.Reason(result.Reply, false)
		}
	default:
		s.State = StateWaiting
	}
	return s
}

// statusOf is what a record of the history says.
func statusOf(r history.Record) Status {
	states := map[history.State]MessageState{
		history.Sent: StateSent, history.Skipped: StateSkipped, history.Silent: StateSilent, history.Cancelled: StateCancelled,
		history.Dead: StateDead, history.Replayed: StateReplayed, history.Deleted: StateDeleted,
	}
	name := wire.ParseQueueName(r.Queue)
	return Status{
		State: states[r.State], ID: r.ID, MessageID: r.MessageID, Queue: name.Queue, Mailer: name.Mailer, Mailing: r.Mailing, Tags: r.Tags,
		To: r.To, Recipients: r.Recipients, Due: r.Due, At: r.At, Tries: r.Tries, Reply: r.Reply, Member: r.Member,
	}
}
