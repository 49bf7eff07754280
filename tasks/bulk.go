package tasks

import (
	"context"
	"crypto/rand"

	"github.com/mailpouch/mailpouch/mailer"
)

// maxMassBytes bounds a mass task: asynq writes the payload of an active task to Redis
// every few seconds, and a worker holds all its messages in memory.
const maxMassBytes = 1 << 20

// bulk gathers the messages of one hand-over into mass tasks.
type bulk struct {
	queue   *Queue
	results func(int, mailer.Result)
	down    error // Redis cannot be reached

	payloads []*payload
	indexes  []int           // of the messages in the hand-over
	bytes    int             // of the gathered messages, roughly
	blobs    map[string]bool // counted already
}

func newBulk(q *Queue, report func(int, mailer.Result)) *bulk {
	return &bulk{queue: q, results: report, blobs: map[string]bool{}}
}

// report reports a message's result and notes if Redis is away.
func (b *bulk) report(i int, r mailer.Result) {
	if mailer.ClassOf(r.Err) == mailer.Unavailable {
		b.down = r.Err
	}
	b.results(i, r)
}

// add gathers a message, and hands over what is gathered when that is enough.
func (b *bulk) add(ctx context.Context, i int, p *payload) {
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
func (b *bulk) size(p *payload) int {
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
		for _, i := range indexes {
			b.results(i, mailer.Result{Err: b.down})
		}
	case len(payloads) == 1:
		b.report(indexes[0], b.queue.handOver(ctx, payloads[0]))
	default:
		id := rand.Text()
		err := b.queue.handOverMass(ctx, payloads, id)
		for n, i := range indexes {
			r := mailer.Result{Reply: massID(id, n)}
			if err != nil {
				r = mailer.Result{Err: err}
			}
			b.report(i, r)
		}
	}
}
