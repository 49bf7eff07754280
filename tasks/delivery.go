package tasks

import (
	"context"
	"crypto/rand"
	"iter"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// A message on its way through the worker:
//
//	asynq -> handler: taskMessage -> delivery -> sender -> outcome -> handler -> asynq

// taskMessage is a message of a task as its handler sees it.
type taskMessage struct {
	task     *asynq.Task
	id       string // the message's: the task's, with the index in a bulk task
	queue    string // asynq's
	name     wire.QueueName
	key      string // of the task in Redis
	index    int    // in a bulk task
	suffix   string // what the message's fields of the task's record end in: "" if it has the task to itself
	token    string // names this try
	retried  int    // as asynq counts
	maxRetry int
	started  time.Time
	timeout  time.Duration // of the task, which tells asynq's tools something and the worker nothing
	payload  *wire.Payload // nil if it cannot be read
	alone    bool          // it runs with nothing else in the process
	handed   *handedTask
	progress int                // messages of a bulk task that are through
	read     weight.Reservation // for the task as long as it is not read
	span     *span
}

func newTaskMessage(ctx context.Context, task *asynq.Task) *taskMessage {
	t := &taskMessage{task: task, token: rand.Text()[:12], started: time.Now()}
	t.id, _ = asynq.GetTaskID(ctx)
	t.queue, _ = asynq.GetQueueName(ctx)
	t.name, t.key = wire.ParseQueueName(t.queue), asynqbatch.TaskKey(t.queue, t.id)
	t.retried, _ = asynq.GetRetryCount(ctx)
	t.maxRetry, _ = asynq.GetMaxRetry(ctx)
	t.maxRetry -= spareRetry
	t.timeout = asynqbatch.Timeout(ctx, t.started)
	return t
}

// stays says that the task cannot go back to its queue now.
func (t *taskMessage) stays() { t.handed.stays() }

// tries is how many the message had before this one.
func (t *taskMessage) tries() int { return t.retried + t.payload.Spent }

// base is what the names of all that comes of the message begin with.
func (t *taskMessage) base() string {
	if t.payload == nil {
		return t.id
	}
	return t.payload.BaseID(t.id)
}

func (t *taskMessage) attempt() attempt {
	a := attempt{
		Now: t.started, Due: t.payload.DueAt,
		Retried: t.tries(), MaxRetry: t.maxRetry,
		FailSilently: t.payload.Message.FailSilently, AtMostOnce: t.payload.AtMostOnce,
	}
	if t.payload.Deadline != nil {
		a.Deadline = *t.payload.Deadline
	}
	return a
}

func (t *taskMessage) message() *mailer.EmailMessage {
	if len(t.payload.Recipients) > 0 {
		return t.payload.Message.WithRecipients(t.payload.Recipients)
	}
	return t.payload.Message
}

// unpack returns the messages of a bulk task. The payload of one that cannot be read is
// nil, and its entry in errs says why.
func (t *taskMessage) unpack(codec *wire.Codec) (messages []*taskMessage, errs []error) {
	for line := range codec.Lines(t.task.Payload()) {
		m := t.part(len(messages))
		p, err := wire.Decode(line, t.task.Headers())
		m.payload = p
		messages, errs = append(messages, m), append(errs, err)
	}
	return messages, errs
}

// part is the message of a bulk task with that index, without its payload.
func (t *taskMessage) part(index int) *taskMessage {
	m := new(*t)
	m.index = index
	m.id = wire.MessageID(t.id, index)
	m.suffix = m.id[len(t.id):]
	return m
}

// need is the memory that messages take until they are through. What several of them
// share counts once.
func need(messages []*taskMessage) int {
	octets := 0.0
	var shared map[string]bool
	for _, t := range messages {
		if t.payload == nil {
			continue
		}
		w := weight.Of(t.payload.Message)
		octets += w.Memory() // without what is in blobs
		for _, b := range t.payload.Blobs {
			if shared[b.Hash] {
				continue
			}
			octets += float64(b.Size) * weight.CostOf(b)
			if shared == nil {
				shared = map[string]bool{}
			}
			shared[b.Hash] = true
		}
	}
	return int(octets)
}

// reported reports whether the failure of a message was reported when it happened, in the bulk task
// that it comes from.
func (t *taskMessage) reported() bool {
	return t.payload != nil && t.payload.Refused != "" && len(t.payload.Recipients) == 0
}

// startSpan starts the span of a try, if there is a tracer. It ends with the outcome, or with endSpan.
func (t *taskMessage) startSpan(ctx context.Context, tracer Tracer) {
	t.span = startSpan(ctx, tracer, t.task.Headers(), t.name.Queue, t.id)
}

// endSpan ends the span of a try that has no outcome: the message is given back.
func (t *taskMessage) endSpan() { t.span.done("", nil) }

// delivery is one message on its way through the worker, from the handler that holds its
// task to the sender that holds the connection, and back.
type delivery struct {
	message  *mailer.EmailMessage
	attempt  attempt
	index    int              // in its task
	done     chan<- *delivery // gets the delivery when outcome is there; has room for it, so no sender waits for a handler
	outcome  outcome
	state    atomic.Int32
	unwanted atomic.Bool // the handler waits for it to leave the wire only
	urgent   bool        // it came by the priority channel
	spared   bool        // the relay has said goodbye to it as it had no room for another connection
	fresh    bool        // it was put off by a connection that had carried others, and goes over another one
	soon     bool        // its recipients that were put off were so for the connection's sake
	span     *span
	noted    noted
	cost     int       // recipients that were reserved of the rate for it
	from     time.Time // no sender gets it before

	// The ledger's.
	key        string           // of the task in Redis
	suffix     string           // what the fields of this message there end in; "" if it has the task to itself
	cancelled  string           // the key that is there if the task was cancelled
	mailing    string           // that the message belongs to, "" if to none
	token      string           // names this try
	onceToken  string           // the same if the message is at_most_once; "" for others
	marked     bool             // it may be written: from then on it may have been delivered
	over       bool             // it has ended before it was sent
	gone       bool             // the task is not in Redis, which has forgotten it
	generation string           // tells the tasks apart that have this ID one after the other; "" for an ID used once
	record     string           // of the accepted message
	notes      asynqbatch.Notes // the same for the history, and its events
}

// noted is what the history and hooks have of a message beside what became of it.
type noted struct {
	id     string
	tags   []string
	queue  string // as the producer named it
	mailer string
}

// A delivery waits until a sender claims it for the wire or its handler gives it up,
// whichever is first. On the wire only the sender may say what became of it.
const (
	deliveryWaiting int32 = iota
	deliveryOnWire
	deliveryGivenUp
)

func newDelivery(t *taskMessage, done chan<- *delivery) *delivery {
	d := &delivery{
		message: t.message(), attempt: t.attempt(), index: t.index, done: done,
		noted: noted{t.id, t.payload.Tags, t.name.Queue, t.name.Mailer}, mailing: t.payload.Mailing,
		key: t.key, suffix: t.suffix, cancelled: wire.CancelledKey(t.queue, t.base()), token: t.token, span: t.span,
	}
	d.unwanted.Store(t.alone) // what waits for its relay does not wait alone
	if d.generation = t.payload.Generation(); d.generation != "" {
		d.token = d.generation + "." + d.token
	}
	if t.payload.AtMostOnce {
		d.onceToken = d.token
	}
	return d
}

// step is what is to be done to the task's record for the delivery.
func (d *delivery) step(name string) asynqbatch.Step {
	s := asynqbatch.Step{Name: name, Key: d.key}
	switch name {
	case stepAccepted:
		ends := ""
		if d.suffix == "" && d.onceToken == "" && len(d.outcome.result.Refused) == 0 {
			ends = "1" // with the message the task is done
		}
		s.Args = []string{d.suffix, d.record, d.generation, ends}
		if s.Events = d.notes.Events; d.suffix == "" {
			s.Record = d.notes.Record
		}
	case stepRelease:
		m := d.releases()
		s.Args = []string{d.suffix, m.wire, m.begun}
	default:
		if s.Args = []string{d.suffix, d.cancelled, d.token, d.onceToken}; d.mailing != "" {
			s.Args = append(s.Args, d.mailing)
		}
	}
	return s
}

// stepWith is the step that notes the delivery, which the relay has accepted, and marks the next one, if they are of one bulk task.
func (d *delivery) stepWith(next *delivery) (s asynqbatch.Step, ok bool) {
	if d.key != next.key || d.suffix == "" || d.onceToken != "" || next.onceToken != "" {
		return s, false
	}
	s = asynqbatch.Step{Name: stepNext, Key: d.key}
	s.Args = []string{d.suffix, d.record, d.generation, next.suffix, next.cancelled, next.token}
	s.Events = d.notes.Events
	if next.mailing != "" {
		s.Args = append(s.Args, next.mailing)
	}
	return s, true
}

func stepsOf(name string, deliveries []*delivery) []asynqbatch.Step {
	list := make([]asynqbatch.Step, len(deliveries))
	for i, d := range deliveries {
		list[i] = d.step(name)
	}
	return list
}

// askAll is the step that asks for deliveries of one task.
func askAll(run []*delivery) asynqbatch.Step {
	s := asynqbatch.Step{Name: stepAsk, Key: run[0].key, Args: make([]string, len(run))}
	for i, d := range run {
		s.Args[i] = d.suffix
	}
	return s
}

// runs yields the deliveries by their tasks: those of one task stand together.
func runs(deliveries []*delivery) iter.Seq[[]*delivery] {
	return func(yield func([]*delivery) bool) {
		for len(deliveries) > 0 {
			n := 1
			for n < len(deliveries) && deliveries[n].key == deliveries[0].key {
				n++
			}
			if !yield(deliveries[:n]) {
				return
			}
			deliveries = deliveries[n:]
		}
	}
}

// mark is what a try that may have delivered its message has left in the task's record: its tokens.
type mark struct{ wire, begun string }

// releases is what is to be taken back of the mark: of a try that is put back all, and of one that has an outcome
// what that says. The end of an at_most_once try is known, and it was no delivery. And if the same task tries again,
// the message can be cancelled until then. A message of a bulk task becomes a task of its own, where it
// can be cancelled.
func (d *delivery) releases() mark {
	e := d.outcome.result.Err
	if e == nil {
		return mark{d.token, d.onceToken}
	}
	var m mark
	if mailer.ClassOf(e) != mailer.Unknown {
		m.begun = d.onceToken
	}
	if d.suffix == "" && d.outcome.verdict.Action == retry && !deliverypolicy.InDoubt(e) {
		m.wire = d.token
	}
	return m
}

// name is what the ledger remembers the message by.
func (d *delivery) name() string { return entryName(d.key, d.generation, d.suffix) }

func entryName(key, generation, suffix string) string {
	if generation == "" && suffix == "" {
		return key
	}
	return key + "\x00" + generation + "\x00" + suffix
}

// end gives the delivery with its outcome to the handler.
func (d *delivery) end(o outcome) {
	d.outcome = o
	d.done <- d
}

// claim takes the delivery for the wire. It is false if the handler has given it up.
func (d *delivery) claim() bool { return d.state.CompareAndSwap(deliveryWaiting, deliveryOnWire) }

// putBack undoes claim: nothing of the message has been accepted. If the handler wanted it
// back meanwhile it gets it, with the outcome that it waits.
func (d *delivery) putBack() {
	d.state.Store(deliveryWaiting)
	if d.unwanted.Load() && d.state.CompareAndSwap(deliveryWaiting, deliveryGivenUp) {
		d.end(outcome{verdict: verdict{Action: hold}})
	}
}

// giveUp takes the delivery back. It is false if the delivery is on the wire: then it comes when it
// has an outcome, or is put back.
func (d *delivery) giveUp() bool {
	d.unwanted.Store(true)
	if !d.state.CompareAndSwap(deliveryWaiting, deliveryGivenUp) {
		return false
	}
	d.message = nil // a sender may have the delivery for long, and not look at it
	return true
}

// claim takes the deliveries for the wire that their handlers have not given up.
func claim(batch []*delivery) []*delivery {
	deliveries := make([]*delivery, 0, len(batch))
	for _, d := range batch {
		if d.claim() {
			deliveries = append(deliveries, d)
		}
	}
	return deliveries
}

func messages(deliveries []*delivery) []*mailer.EmailMessage {
	list := make([]*mailer.EmailMessage, len(deliveries))
	for i, d := range deliveries {
		list[i] = d.message
	}
	return list
}

// outcome is how a try of a message has ended, and what the worker does about it.
type outcome struct {
	result  mailer.Result
	verdict verdict

	sender    int              // which one tried; 0: none
	relay     string           // the mailer that has it
	lost      bool             // the task is another worker's: nothing is to be done about it here
	late      asynqbatch.Notes // what is to be written yet: the record of a message of a bulk task, and all if Redis could not be told of the acceptance
	paused    string           // it was not tried: its "queue", or its "mailing", is paused
	at        time.Time        // when the relay accepted it; zero: it did not, or it is not known
	retried   int              // with at: tries before that one
	again     bool             // the message had been sent before, and was not sent again
	forwarded bool             // the task went on to another queue
	soon      bool             // recipients that were put off are to be tried again at once
	moved     bool             // an earlier run of the bulk task has made a task of the message
	remainder *wire.Remainder  // with moved: it had begun to
}

// member is the mailer that a message of mailer went with, "" if that is mailer itself.
func (o outcome) member(mailer string) string {
	if o.relay == mailer {
		return ""
	}
	return o.relay
}

// dead is the outcome of a message that is a dead letter without having been on the wire.
func dead(reason error) outcome { return outcome{verdict: verdict{Action: deadLetter, Reason: reason}} }

// outcomeOf is how a message ends whose record is in the ledger.
func outcomeOf(data string) (outcome, error) {
	r, err := wire.DecodeRecord(data)
	if err != nil {
		return outcome{again: true}, err
	}
	if r.Moved {
		return outcome{moved: true, remainder: r.Rest}, nil
	}
	o := outcome{result: r.Result(), retried: r.Retried, again: true}
	if r.At > 0 {
		o.at = time.Unix(r.At, 0)
	}
	return o, nil
}

// entry is what the ledger is to have of a message that was accepted.
func (o outcome) entry() wire.Record {
	r := wire.NewRecord(o.result)
	if !o.at.IsZero() {
		r.At, r.Retried = o.at.Unix(), o.retried
	}
	return r
}

// settled is its entry when the recipients who were refused are taken care of.
func (o outcome) settled() wire.Record {
	r := o.entry()
	r.Refused = nil
	return r
}

// withSpans is the context in which the messages of deliveries are sent.
func withSpans(ctx context.Context, tracer Tracer, deliveries []*delivery) context.Context {
	if tracer == nil {
		return ctx
	}
	contexts := make([]context.Context, len(deliveries))
	for i, d := range deliveries {
		contexts[i] = d.span.ctx
	}
	return tracer.WithMessages(ctx, contexts)
}
