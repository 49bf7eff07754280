package mailer

import (
	"errors"
	"fmt"
	"strings"
)

// The errors of a queue are here, so that a program can tell them apart whichever queue it has.

// ErrTooLate reports that a message cannot be cancelled: it is on the wire, was sent, may
// have been sent, or is a dead letter. It cannot be given another time of sending from the moment in which a worker has it.
var ErrTooLate = errors.New("too late to cancel")

// ErrNoTask reports that there is no task with an ID. A task is gone when its message
// was sent, unless it has a retention.
var ErrNoTask = errors.New("no such task")

// ErrInBulk reports that a message cannot be given another time of sending, for it travels in one task with others. It can be
// cancelled and handed over anew.
var ErrInBulk = errors.New("travels in one task with others")

// UnknownMailerError reports that a message names a mailer that is not configured.
type UnknownMailerError struct {
	Name  string
	Known []string
}

func (e *UnknownMailerError) Error() string {
	return fmt.Sprintf("mailer: the mailer %q is not configured (there are %s)", e.Name, strings.Join(e.Known, ", "))
}

// IdempotencyError reports that an idempotency key was used for another message before.
// Nothing was queued.
type IdempotencyError struct {
	Key string
	ID  string // of the task that has the key
}

func (e *IdempotencyError) Error() string {
	return fmt.Sprintf("idempotency key %q was used for another message (task %s)", e.Key, e.ID)
}

// DeadLetterError reports that the same message was handed over before and could not be
// delivered. Nothing was queued: a person replays the dead letter (tasks.DeadLetters.Replay)
// or deletes it, which sets the key free.
type DeadLetterError struct {
	ID     string // of the dead letter
	Queue  string
	Reason string // why it could not be delivered
}

func (e *DeadLetterError) Error() string {
	return fmt.Sprintf("the same message is a dead letter (%s): send it again with: enqueue dead replay %s", e.Reason, e.ID)
}
