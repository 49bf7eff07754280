package tasks

import (
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Observer is told what a worker does, for metrics and pages. A function that is nil is
// not called. They are called from several goroutines, on the way of the mail: they
// must be quick, and must not change what they get.
type Observer struct {
	Batch   func(Batch)                       // a sender has sent a batch
	Outcome func(Outcome)                     // a try of a message has ended
	Held    func(mailer string, reason error) // a mailer's relay takes no mail; nil: it does again
}

// observers tells each of several observers.
type observers []Observer

func (l observers) batch(b Batch) {
	for _, o := range l {
		if o.Batch != nil {
			o.Batch(b)
		}
	}
}

func (l observers) outcome(out Outcome) {
	for _, o := range l {
		if o.Outcome != nil {
			o.Outcome(out)
		}
	}
}

func (l observers) held(mailer string, reason error) {
	for _, o := range l {
		if o.Held != nil {
			o.Held(mailer, reason)
		}
	}
}

// Batch is what one sender sent at once.
type Batch struct {
	Mailer   string // "" for the default one
	Sender   int    // which of the worker's, from 1: each has one connection at a time
	Size     int    // messages
	Accepted int    // of which the relay took this many
	Duration time.Duration
}

// Action is what a worker did with a message in the end.
type Action string

// The actions.
const (
	ActionSent       Action = "sent"            // the relay has accepted it
	ActionSentBefore Action = "sent before"     // an earlier try was accepted, it was not sent again
	ActionSkipped    Action = "skipped"         // it has no recipients
	ActionSilent     Action = "failed silently" // its one try has failed, and it was handed over so (FailSilently)
	ActionRetry      Action = "retry"
	ActionDead       Action = "dead letter"
	ActionCancelled  Action = "cancelled"
	ActionForwarded  Action = "forwarded" // to the queue of the mailer that it names
)

// Outcome is how one try of a message has ended.
type Outcome struct {
	Action    Action
	MessageID string
	TaskID    string // the message's, as Enqueue has returned it
	Queue     string // as the producer named it
	Shard     int    // the part of the queue, from 1; 0 if that is in one piece
	Mailer    string // "" for the default one
	Sender    int    // which of the worker's; 0 if it came to none
	Conn      string // the connection that it was sent over, if the backend says
	Try       int    // from 1

	Reply   string              // the relay's, to an accepted message
	Refused []*mailer.SendError // recipients refused though it was accepted for others
	Err     error               // why it failed; mailer.ClassOf tells its class
	RetryIn time.Duration       // for ActionRetry

	Waited time.Duration // from the time when it was due until this worker took it
	Took   time.Duration // from then until now
}
