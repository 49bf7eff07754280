package tasks

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/lookup"
)

// MessageState is where a message is, or what became of it.
//
//	type MessageState string
//
//	// Ended reports whether nothing more will be done about the message by itself.
//	func (s MessageState) Ended() bool
type MessageState = lookup.MessageState

// The states.
const (
	StateWaiting   MessageState = lookup.StateWaiting   // "waiting": in its queue: a worker takes it when it is its turn
	StateScheduled MessageState = lookup.StateScheduled // "scheduled": it is due later
	StatePaused    MessageState = lookup.StatePaused    // "paused": its queue, mailer or mailing is, and it waits until that is resumed (NewPauses)
	StateRetry     MessageState = lookup.StateRetry     // "retry": a try has failed, and there will be another one
	StateInHand    MessageState = lookup.StateInHand    // "in hand": a worker has it
	StateOnWire    MessageState = lookup.StateOnWire    // "on the wire": and is about to send it, or may have sent it
	StateSent      MessageState = lookup.StateSent      // "sent": the relay has accepted it
	StateSkipped   MessageState = lookup.StateSkipped   // "skipped": it had no recipients
	StateSilent    MessageState = lookup.StateSilent    // "failed silently": its one try has failed, and it was handed over so (FailSilently)
	StateCancelled MessageState = lookup.StateCancelled // "cancelled": taken back before it was on the wire
	StateDead      MessageState = lookup.StateDead      // "dead letter": it could not be delivered, and is kept for a person
	StateReplayed  MessageState = lookup.StateReplayed  // "replayed": a dead letter that was queued again, as the task that Reply names
	StateDeleted   MessageState = lookup.StateDeleted   // "deleted": a dead letter that a person has deleted
	StateSeveral   MessageState = lookup.StateSeveral   // "several": a task of many messages, of which not all are in one state
	StateUnknown   MessageState = lookup.StateUnknown   // "unknown": there is no such message, or it has ended before Status.Since
)

// Status is what is known of a message. What is not known is zero. Addresses are masked.
//
//	type Status struct {
//		State     MessageState `json:"state"`
//		ID        string       `json:"id,omitempty"` // as Enqueue has returned it
//		MessageID string       `json:"message_id,omitempty"`
//		Queue     string       `json:"queue,omitempty"`  // as the producer named it
//		Mailer    string       `json:"mailer,omitempty"` // "" for the default one
//		Member    string       `json:"member,omitempty"` // the mailer that it went with, if its own has members
//		Mailing   string       `json:"mailing,omitempty"`
//		Tags      []string     `json:"tags,omitempty"`
//
//		// To are the recipients: the first ten of as many as Recipients says.
//		To         []string `json:"to,omitempty"`
//		Recipients int      `json:"recipients,omitempty"`
//
//		Due   time.Time `json:"due,omitzero"` // when it was to be sent first; of what is to be tried again, when that is
//		At    time.Time `json:"at,omitzero"`  // when it has ended: of what was sent with others in one task it may come a second later
//		Tries int       `json:"tries,omitempty"`
//
//		// Reply is the relay's reply to a message that was sent. Of one that was not it is why: of StateRetry the last error. Of
//		// StateReplayed it is the ID of the new task.
//		Reply string `json:"reply,omitempty"`
//
//		// Parts are the messages of a task of many, or what has come of the message as tasks of their own: the recipients that
//		// were refused, and what a replay has made of it.
//		Parts []Status `json:"parts,omitempty"`
//
//		// Kept is how long the history has what has ended, and Since from when on it is complete: it has not kept longer, or the
//		// oldest records had to go (History.Size). Both are zero if no history is kept. They are set in what Status returns,
//		// not in Parts.
//		Kept  time.Duration `json:"-"`
//		Since time.Time     `json:"since,omitzero"`
//	}
type Status = lookup.Status

// Search says which messages are looked for: those that fit all that is not zero.
//
//	type Search struct {
//		To      string    // a recipient's address, in full
//		Tag     string    //
//		Mailing string    //
//		Since   time.Time // what has ended before that is left out
//		Limit   int       // how many, the newest: 100 if zero
//	}
type Search = lookup.Search

// Found is what a Search has found.
//
//	type Found struct {
//		Messages []Status // those that have not ended first, then the newest first
//
//		// More reports that there may be more than Search.Limit.
//		More bool
//
//		// Kept and Since are as in Status.
//		Kept  time.Duration
//		Since time.Time
//	}
type Found = lookup.Found

// Status returns what is known of a message by the ID of its task, its own ID in a task of many, or its Message-ID. It is
// StateUnknown if it is neither in a queue nor in the history. With the ID of a task of many messages it is their state, if
// all have the same.
//
// What waits is read from its task. What has ended is found in the history, and a Message-ID in what waits, by looking through
// it: that takes Redis about a second for a million messages, in small pieces. It is for the questions of people.
func (q *Queue) Status(ctx context.Context, id string) (Status, error) {
	return lookup.New(q.redis).Status(ctx, id)
}

// Message returns what is known of a message by its ID or its own ID in a task of many, as Status does, and the message itself while a task has
// it, nil otherwise. Contents that are stored beside the queue are left out. The history is looked through only for a message that
// no task has: what waits is found at once.
func (q *Queue) Message(ctx context.Context, id string) (Status, *mailer.EmailMessage, error) {
	return lookup.New(q.redis).Message(ctx, id)
}

// History is as Lookup.History.
func (q *Queue) History(ctx context.Context, s Search) (Found, error) {
	return lookup.New(q.redis).History(ctx, s)
}

// Lookup finds messages, wherever they are, in all queues of a Redis.
type Lookup struct{ room *lookup.Lookup }

// NewLookup returns a Lookup in the given Redis, which it does not close.
func NewLookup(client redis.UniversalClient) *Lookup { return &Lookup{lookup.New(client)} }

// Status is as Queue.Status.
func (l *Lookup) Status(ctx context.Context, id string) (Status, error) {
	return l.room.Status(ctx, id)
}

// History returns the messages that fit a search: what waits, and what has ended as far as the history reaches back. It
// looks through all of both, as Status does for a Message-ID. The error of a recipient that is no address is
// of class Permanent.
func (l *Lookup) History(ctx context.Context, s Search) (Found, error) {
	return l.room.History(ctx, s)
}
