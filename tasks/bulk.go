package tasks

import (
	"context"
	"crypto/rand"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// maxMassBytes bounds a mass task: asynq writes the payload of an active task to Redis
// every few seconds, and a worker holds all its messages in memory.
const maxMassBytes = 1 << 20

// bulk gathers the messages of one hand-over into mass tasks.
type bulk struct {
	queue   *Queue
	results func(group []mailer.Report)
	group   []mailer.Report // results of a task, to be reported together
	down    error           // Redis cannot be reached

	payloads []*wire.Payload
	indexes  []int           // of the messages in the hand-over
	bytes    int             // of the gathered messages, roughly
	blobs    map[string]bool // counted already
}

func newBulk(q *Queue, report func(group []mailer.Report)) *bulk {
	return &bulk{queue: q, results: report, blobs: map[string]bool{}}
}

// report reports the result of a message that Redis was asked to take, and notes if Redis is away.
func (b *bulk) report(i int, r mailer.Result) {
	if mailer.ClassOf(r.Err) == mailer.Unavailable {
		b.down = r.Err
	}
	b.tell(i, r)
}

// tell reports one message's result.
func (b *bulk) tell(i int, r mailer.Result) {
	b.group = append(b.group[:0], mailer.Report{Index: i, Result: r})
	b.results(b.group)
}

// add gathers a message, and hands over what is gathered when that is enough.
func (b *bulk) add(ctx context.Context, i int, p *wire.Payload) {
	if size := b.size(p); len(b.payloads) > 0 && b.bytes+size > maxMassBytes {
		b.flush(ctx)
	}
	b.bytes += b.size(p)
	for _, blob := range p.Blobs {
		b.blobs[blob.Hash] = true
	}
	b.payloads, b.indexes = append(b.payloads, p), append(b.indexes, i)
	if len(b.payloads) == b.queue.cfg.MassSize {
		b.flush(ctx)
	}
}

// size is what a message adds to the memory that a worker needs for all of them. A
// blob of several messages counts once.
func (b *bulk) size(p *wire.Payload) int {
	w := weigh(p.Message)
	size := w.sum() - w.parts*partHeader
	for _, blob := range p.Blobs {
		if b.blobs[blob.Hash] {
			size -= blob.Size
		}
	}
	return size
}

// flush hands over what is gathered.
func (b *bulk) flush(ctx context.Context) {
	payloads, indexes := b.payloads, b.indexes
	b.payloads, b.indexes, b.bytes = nil, nil, 0
	clear(b.blobs)
	switch {
	case len(payloads) == 0:
	case b.down != nil:
		b.tellAll(indexes, b.down, "")
	case len(payloads) == 1:
		b.report(indexes[0], b.queue.handOver(ctx, payloads[0]))
	default:
		id := rand.Text()
		err := b.queue.handOverMass(ctx, payloads, id)
		if mailer.ClassOf(err) == mailer.Unavailable {
			b.down = err
		}
		b.tellAll(indexes, err, id)
	}
}

// tellAll reports the results of the messages of a task, which are known together.
func (b *bulk) tellAll(indexes []int, err error, id string) {
	b.group = b.group[:0]
	for n, i := range indexes {
		r := mailer.Result{Err: err}
		if err == nil {
			r.Reply = wire.MessageID(id, n)
		}
		b.group = append(b.group, mailer.Report{Index: i, Result: r})
	}
	b.results(b.group)
}
