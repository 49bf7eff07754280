package tasks

import (
	"context"
	"errors"
	"slices"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// Prepared are messages that are checked and ready to be queued. It may be sent once.
type Prepared struct {
	queue *Queue
	known []mailer.Report // what is wrong with messages, and those without recipients
	tasks []preparedTask
	size  int
}

// preparedTask is a task that is ready to be queued.
type preparedTask struct {
	ready   *producer.Ready                         // if it has one message, and is handed over with one write
	one     func(ctx context.Context) mailer.Result // if it has one message otherwise
	many    func(ctx context.Context) error         // if it has many
	reports []mailer.Report                         // of its messages if it is queued; one says what its own has
}

// Prepare does all of SendBatch that comes before a message is written to Redis, so that many messages can be checked before the
// first one is queued, without the work being done twice. Begin, Commit and Report of the batch are not used. What it
// returns needs the messages, which must not be changed until it is sent.
func (q *Queue) Prepare(ctx context.Context, batch mailer.Batch) *Prepared {
	q = q.With(batch.Options)
	out := &Prepared{queue: q}
	var task *preparedTask // whose reports come next
	q.gather(mailer.Batch{Messages: batch.Messages, Report: func(reports []mailer.Report) {
		if task == nil {
			out.known = append(out.known, reports...)
			return
		}
		task.reports = slices.Clone(reports)
		out.tasks, task = append(out.tasks, *task), nil
	}}, &bulk{
		one: func(i int, p *wire.Payload) {
			if !q.writesOnce(p) {
				out.size += sizeOf(p)
				out.tasks = append(out.tasks, preparedTask{
					one: func(ctx context.Context) mailer.Result { return q.handOver(ctx, p) }, reports: []mailer.Report{{Index: i}},
				})
				return
			}
			ready, r := q.ready(ctx, p)
			report := []mailer.Report{{Index: i, Result: r}}
			if r.Err != nil {
				out.known = append(out.known, report...)
				return
			}
			out.size += ready.Size
			out.tasks = append(out.tasks, preparedTask{ready: ready, reports: report})
		},
		many: func(payloads []*wire.Payload, id string) (err error) {
			many := func(ctx context.Context) error { return q.handOverMany(ctx, payloads, id) }
			if !slices.ContainsFunc(payloads, func(p *wire.Payload) bool { return !q.writesOnce(p) }) {
				ctx, ready := producer.Readied(ctx)
				if err = many(ctx); err == nil {
					out.size += ready.Size
					task = &preparedTask{many: func(ctx context.Context) error {
						if err := ready.Put(ctx); !errors.Is(err, asynq.ErrTaskIDConflict) {
							return err
						}
						return nil
					}}
				}
				return err
			}
			for _, p := range payloads {
				out.size += sizeOf(p)
			}
			task = &preparedTask{many: many}
			return nil
		},
	})
	return out
}

func sizeOf(p *wire.Payload) int {
	w := weight.Of(p.Message)
	return w.Sum()
}

// Size is how many bytes of memory the messages take, about.
func (p *Prepared) Size() int { return p.size }

// Known calls report with what is known of messages before any is queued: what is wrong with them. All others may be queued.
func (p *Prepared) Known(report func([]mailer.Report)) {
	if len(p.known) > 0 {
		report(p.known)
	}
}

// Send queues the messages and calls report as SendBatch does, but not for those of which Known has.
func (p *Prepared) Send(ctx context.Context, report func([]mailer.Report)) {
	b := &bulk{results: report}
	all := p.queue.together(ctx, b)
	for _, t := range p.tasks {
		if t.ready != nil {
			all.add(t.ready, t.reports[0])
			continue
		}
		reports := t.reports
		switch {
		case b.down != nil:
			fail(reports, b.down)
		case t.one != nil:
			reports[0].Result = t.one(ctx)
			b.noteDown(reports[0].Err)
		default:
			if err := t.many(ctx); err != nil {
				b.noteDown(err)
				fail(reports, err)
			}
		}
		report(reports)
	}
	all.flush()
	p.tasks = nil
}
