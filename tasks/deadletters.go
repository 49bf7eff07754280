package tasks

import (
	"context"
	"iter"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/tasks/internal/letters"
)

// DeadLetter is a message, or those of its recipients, that could not be delivered and
// will not be tried again by itself.
//
//	type DeadLetter struct {
//		ID     string // of the task
//		Queue  string
//		Reason string    // the last error, with addresses
//		Tries  int       // that the message had
//		At     time.Time // of the last one
//
//		// Message is nil if the task could not be read, or has many messages; Payload is what it holds.
//		Message    *mailer.EmailMessage
//		Messages   int      // of a task of bulk mail that is a dead letter as a whole; 0 for others
//		Recipients []string // bare addresses: those of the message that it did not reach
//		Tags       []string
//		Mailing    string
//		Payload    []byte
//
//		// Missing names the attachments and bodies whose content is lost: it was stored beside
//		// the queue and is not there any more. They are empty in Message.
//		Missing []string
//
//		// History has the tries that Redis remembers, oldest first: those of this task after which the message was to be
//		// tried again, and the last one. Get alone fills it in.
//		History []Try
//		// Has unexported fields.
//	}
//
//	// Mailer is the name of the mailer whose queue the message is in, "" for the default one.
//	func (l *DeadLetter) Mailer() string
//
//	// Subject is the subject of the message, if there is one that can be read.
//	func (l *DeadLetter) Subject() string
type DeadLetter = letters.DeadLetter

// Try is one try of a message that has failed.
//
//	type Try struct {
//		Number int       `json:"try"`
//		At     time.Time `json:"at"`
//		Reason string    `json:"reason"` // with addresses
//	}
type Try = letters.Try

// Filter says which messages that failed are meant: those for which all of it holds. The zero value means all.
//
//	type Filter struct {
//		Queue  string // as producers call it, of every mailer, or as asynq has it
//		Mailer string // the name of a mailer; "default" is the one without
//
//		Reason string // the reason contains it, in whatever case
//		Group  string // the reason is of this group: see ReasonGroup
//
//		// To is an address, in whatever case; "@example.com" is all of a domain, and a text without an @ is a part of an
//		// address.
//		To      string
//		Subject string // the subject contains it, in whatever case
//		Tag     string
//		Mailing string
//
//		Since, Until time.Time // of the last try; Until is not of it
//
//		// Masked compares reasons as they are shown where addresses are masked: nobody can find out an address by asking.
//		Masked bool
//	}
//
//	// HasQueue reports whether letters of a queue of asynq's, by its name there, may be meant.
//	func (f Filter) HasQueue(queue string) bool
//
//	// Matches reports whether a letter is meant.
//	func (f Filter) Matches(l *DeadLetter) bool
//
//	// Set sets a field to what a person has written: "queue", "mailer", "reason", "group", "to", "subject", "tag", "mailing",
//	// and "since" and "until", which are a time, a day, or how long ago in d, h, m or s. A value that says nothing sets
//	// nothing. The error is a FilterError.
//	func (f *Filter) Set(name, value string, now time.Time) error
type Filter = letters.Filter

// FilterError is the error of a filter that means nothing.
//
//	type FilterError struct {
//		Name   string // of the field, as Set has it
//		Reason string // what is wrong, and what is expected
//	}
//
//	func (e *FilterError) Error() string
type FilterError = letters.FilterError

// Survey is how many messages failed for which reason.
//
//	type Survey struct {
//		Total  int
//		Groups []ReasonCount // the most frequent ones first
//		Others int           // messages of further groups, of which there are too many
//
//		Newest []*DeadLetter // as DeadLetters.Summary has them, those that failed last first
//	}
type Survey = letters.Survey

// ReasonCount is the messages of one ReasonGroup.
//
//	type ReasonCount struct {
//		Group  string         `json:"reason"`
//		Count  int            `json:"count"`
//		Queues map[string]int `json:"queues"` // how many are in each of asynq's queues
//		Newest time.Time      `json:"newest"` // when the newest failed last
//	}
type ReasonCount = letters.ReasonCount

// ReasonGroup is what reasons have in common that differ only in addresses, numbers and how often was tried: those of one
// cause. It is for people to read, too: "550 5.1.1 …: Recipient address rejected: User unknown (RCPT)".
func ReasonGroup(reason string) string { return letters.ReasonGroup(reason) }

// DeadLetters is the way to the messages that could not be delivered.
type DeadLetters struct{ room *letters.DeadLetters }

// ErrNotDead reports that there is no dead letter with an ID.
var ErrNotDead = letters.ErrNotDead

// NewDeadLetters returns the dead letters in the given Redis, which it does not close.
func NewDeadLetters(client redis.UniversalClient) *DeadLetters {
	return &DeadLetters{letters.NewDeadLetters(client)}
}

// Queues returns the names of all queues, sorted, as asynq has them: "default", and
// "marketing.default" for the mail of the named mailer marketing.
func (d *DeadLetters) Queues() ([]string, error) { return d.room.Queues() }

// Count returns how many dead letters a queue has: the number to alarm on.
func (d *DeadLetters) Count(ctx context.Context, queue string) (int, error) {
	return d.room.Count(ctx, queue)
}

// Each yields the dead letters that a filter means, oldest first in each queue, as Summary has them, and asks Redis for
// them page by page: however many there are, few are in memory. Letters may be deleted or replayed meanwhile, by the
// caller too; those that become dead letters meanwhile are not yielded. With an error it ends.
func (d *DeadLetters) Each(ctx context.Context, f Filter) iter.Seq2[*DeadLetter, error] {
	return d.room.Each(ctx, f)
}

// Survey counts the dead letters that a filter means, by reason, and has the newest of them: so many as are asked for.
func (d *DeadLetters) Survey(ctx context.Context, f Filter, newest int) (Survey, error) {
	return d.room.Survey(ctx, f, newest)
}

// IDs returns the dead letters of a queue by the IDs of their tasks, oldest first.
func (d *DeadLetters) IDs(ctx context.Context, queue string) ([]string, error) {
	return d.room.IDs(ctx, queue)
}

// EachID yields the IDs of a queue's dead letters as Each yields the letters.
func (d *DeadLetters) EachID(ctx context.Context, queue string) iter.Seq2[string, error] {
	return d.room.EachID(ctx, queue)
}

// Get returns a dead letter with its whole message and its history. The error is ErrNotDead if it was
// replayed or deleted.
func (d *DeadLetters) Get(queue, id string) (*DeadLetter, error) { return d.room.Get(queue, id) }

// Summary is Get for lists: what is stored beside the queue, the attachments and bodies
// over QueueConfig.AttachmentThreshold, stays there and is empty in the message. Of
// Raw there is the beginning, which has the subject. It has no history.
func (d *DeadLetters) Summary(queue, id string) (*DeadLetter, error) {
	return d.room.Summary(queue, id)
}

// Replay queues a dead letter anew, as if it had been handed over now, and removes it.
// The message is the same, with the same Message-ID; recipients that were reached
// get no second copy. It returns the new task's ID. If several replay a letter at the
// same time one of them does, and the others get ErrNotDead.
func (d *DeadLetters) Replay(ctx context.Context, queue, id string) (string, error) {
	return d.room.Replay(ctx, queue, id)
}

// Delete removes a dead letter for good.
func (d *DeadLetters) Delete(ctx context.Context, queue, id string) error {
	return d.room.Delete(ctx, queue, id)
}
