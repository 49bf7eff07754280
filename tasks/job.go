package tasks

import (
	"crypto/rand"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/mailer"
)

// job is one message on its way through the worker, from the handler that holds its
// task to the sender that holds the connection, and back.
type job struct {
	message *mailer.EmailMessage
	attempt attempt
	done    chan outcome // has room for the one outcome, so no sender waits for a handler
	state   atomic.Int32

	// The ledger's.
	key       string // of the task in Redis
	onceToken string // names this try of an at_most_once message; "" for others
	record    string // to be written before outcome is given to the handler
	outcome   outcome
}

type outcome struct {
	result  mailer.Result
	verdict verdict
	again   bool // the message had been sent before, and was not sent again
}

// A job waits until a sender claims it for the wire or its handler gives it up,
// whichever is first. On the wire only the sender may say what became of it.
const (
	jobWaiting int32 = iota
	jobOnWire
	jobGivenUp
)

func newJob(t ticket) *job {
	j := &job{message: t.message(), attempt: t.attempt(), done: make(chan outcome, 1), key: taskKey(t.queue, t.id)}
	if t.payload.AtMostOnce {
		j.onceToken = rand.Text()
	}
	return j
}

// claim takes the job for the wire. It is false if the handler has given it up.
func (j *job) claim() bool { return j.state.CompareAndSwap(jobWaiting, jobOnWire) }

// putBack undoes claim: nothing of the message has been accepted.
func (j *job) putBack() { j.state.Store(jobWaiting) }

// giveUp takes the job back. It is false if the job is on the wire.
func (j *job) giveUp() bool { return j.state.CompareAndSwap(jobWaiting, jobGivenUp) }
