package tasks

import (
	"errors"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// job is one message on its way through the worker, from the handler that holds its
// task to the sender that holds the connection, and back.
type job struct {
	message  *mailer.EmailMessage
	attempt  attempt
	index    int         // in its task
	done     chan<- *job // gets the job when outcome is there; has room for it, so no sender waits for a handler
	outcome  outcome
	state    atomic.Int32
	unwanted atomic.Bool // the handler waits for it to leave the wire only
	span     *span

	// The ledger's.
	key       string      // of the task in Redis
	slot      string      // what the fields of this message there end in; "" if it has the task to itself
	cancelled string      // the key that is there if the task was cancelled
	token     string      // names this try
	onceToken string      // the same if the message is at_most_once; "" for others
	gone      bool        // the task was not in Redis when the try began
	stamp     string      // tells the tasks apart that have this ID one after the other; "" for an ID used once
	record    string      // to be written before the handler gets the outcome
	written   chan<- bool // gets whether Redis knows the outcome; has room for that
}

type outcome struct {
	result  mailer.Result
	verdict verdict

	sender    int             // which one tried; 0: none
	again     bool            // the message had been sent before, and was not sent again
	forwarded bool            // the task went on to another queue
	moved     bool            // an earlier run of the mass task has made a task of the message
	rest      *wire.Remainder // with moved: it had begun to
}

// A job waits until a sender claims it for the wire or its handler gives it up,
// whichever is first. On the wire only the sender may say what became of it.
const (
	jobWaiting int32 = iota
	jobOnWire
	jobGivenUp
)

func newJob(t *ticket, done chan<- *job) *job {
	j := &job{
		message: t.message(), attempt: t.attempt(), index: t.index, done: done,
		key: t.key, slot: t.slot, cancelled: wire.CancelledKey(t.queue, t.id), token: t.token, span: t.span,
	}
	j.unwanted.Store(t.alone) // what waits for its relay does not wait alone
	if j.stamp = t.payload.Generation(); j.stamp != "" {
		j.token = j.stamp + "." + j.token
	}
	if t.payload.AtMostOnce {
		j.onceToken = j.token
	}
	return j
}

// endsTask says whether the task of the message, which was accepted, ends with that.
func (j *job) endsTask() bool {
	return j.slot == "" && !j.gone && j.onceToken == "" && len(j.outcome.result.Refused) == 0
}

// name is what the ledger remembers the message by.
func (j *job) name() string { return entryName(j.key, j.stamp, j.slot) }

func entryName(key, stamp, slot string) string {
	if stamp == "" && slot == "" {
		return key
	}
	return key + "\x00" + stamp + "\x00" + slot
}

// end gives the job with its outcome to the handler.
func (j *job) end(o outcome) {
	j.outcome = o
	j.done <- j
}

// claim takes the job for the wire. It is false if the handler has given it up.
func (j *job) claim() bool { return j.state.CompareAndSwap(jobWaiting, jobOnWire) }

// putBack undoes claim: nothing of the message has been accepted. If the handler wanted it
// back meanwhile it gets it, with the outcome that it waits.
func (j *job) putBack() {
	j.state.Store(jobWaiting)
	if j.unwanted.Load() && j.state.CompareAndSwap(jobWaiting, jobGivenUp) {
		j.end(outcome{verdict: verdict{action: hold}})
	}
}

// giveUp takes the job back. It is false if the job is on the wire: then it comes when it
// has an outcome, or is put back.
func (j *job) giveUp() bool {
	j.unwanted.Store(true)
	return j.state.CompareAndSwap(jobWaiting, jobGivenUp)
}

// undelivered says whether it is known that the try delivered nothing and the same task
// tries again: until then the message can be cancelled there. A message of a mass task
// becomes a task of its own, where it can be cancelled then.
func (j *job) undelivered() bool {
	var e *mailer.SendError
	return j.slot == "" && j.outcome.verdict.action == retry && errors.As(j.outcome.result.Err, &e) && e.Class == mailer.Temporary
}
