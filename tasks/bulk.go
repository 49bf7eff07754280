package tasks

import (
	"crypto/rand"
	"errors"

	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// Bulk mail travels as tasks of many messages each, so that the queue's cost per message
// falls. The task is only how they travel: each message has its own place in the
// ledger, its own outcome and its own ID, <task>.<index>. One that fails for now, or for
// good, leaves the bulk task and goes on as a task of its own under that ID. So a bulk
// task always completes in the end, unless nothing can be sent at all.

// bulk gathers the messages of one hand-over into bulk tasks.
type bulk struct {
	most    int                                             // messages of a task
	one     func(i int, p *wire.Payload)                    // which reports its result, now or when all is flushed
	many    func(payloads []*wire.Payload, id string) error // as one task
	results func(group []mailer.Report)
	group   []mailer.Report // results of a task, to be reported together
	down    error           // Redis cannot be reached

	payloads []*wire.Payload
	indexes  []int           // of the messages in the hand-over
	bytes    int             // of the gathered messages, roughly
	blobs    map[string]bool // counted already
}

// answered reports the result of a message that Redis was asked to take, and notes if Redis is away.
func (b *bulk) answered(i int, r mailer.Result) {
	b.noteDown(r.Err)
	b.report(i, r)
}

// noteDown notes if Redis is away: what comes after is not tried. It was not queued, though the message before it may
// have been.
func (b *bulk) noteDown(err error) {
	switch mailer.ClassOf(err) {
	case mailer.Unavailable:
		b.down = err
	case mailer.Unknown:
		b.down = &mailer.SendError{Class: mailer.Unavailable, Step: handover.StepQueue, Err: errors.New("not queued: Redis has not answered for a message before this one")}
	case mailer.Temporary, mailer.Permanent:
	}
}

// report reports one message's result.
func (b *bulk) report(i int, r mailer.Result) {
	b.group = append(b.group[:0], mailer.Report{Index: i, Result: r})
	b.results(b.group)
}

// add gathers a message, and hands over what is gathered when that is enough.
func (b *bulk) add(i int, p *wire.Payload) {
	size := b.size(p)
	if len(b.payloads) > 0 && (b.bytes+size > weight.MaxBulk || b.payloads[0].Mailing != p.Mailing) {
		b.flush() // a task holds one mailing, so that it can wait as a whole while that is paused
		size = b.size(p)
	}
	b.bytes += size
	if b.blobs == nil {
		b.blobs = map[string]bool{}
	}
	for _, blob := range p.Blobs {
		b.blobs[blob.Hash] = true
	}
	b.payloads, b.indexes = append(b.payloads, p), append(b.indexes, i)
	if len(b.payloads) == b.most {
		b.flush()
	}
}

// size is what a message adds to the memory that a worker needs for all of them. A
// blob of several messages counts once.
func (b *bulk) size(p *wire.Payload) int {
	w := weight.Of(p.Message)
	size := w.Fields()
	for _, blob := range p.Blobs {
		if b.blobs[blob.Hash] {
			size -= blob.Size
		}
	}
	return size
}

// flush hands over what is gathered.
func (b *bulk) flush() {
	payloads, indexes := b.payloads, b.indexes
	b.payloads, b.indexes, b.bytes = nil, nil, 0
	clear(b.blobs)
	switch {
	case len(payloads) == 0:
	case b.down != nil:
		b.reportAll(indexes, b.down, "")
	case len(payloads) == 1:
		b.one(indexes[0], payloads[0])
	default:
		id := rand.Text()
		err := b.many(payloads, id)
		b.noteDown(err)
		b.reportAll(indexes, err, id)
	}
}

// reportAll reports the results of the messages of a task, which are known together.
func (b *bulk) reportAll(indexes []int, err error, id string) {
	b.group = b.group[:0]
	for n, i := range indexes {
		r := mailer.Result{Err: err}
		if err == nil {
			r.TaskID = wire.MessageID(id, n)
			r.Reply = r.TaskID
		}
		b.group = append(b.group, mailer.Report{Index: i, Result: r})
	}
	b.results(b.group)
}

// fail makes this the result of messages.
func fail(reports []mailer.Report, err error) {
	for i := range reports {
		reports[i].Result = mailer.Result{Err: err}
	}
}
