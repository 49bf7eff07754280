package tasks

import (
	"context"
	"errors"
	"slices"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Bulk mail travels as tasks of many messages each, so that the queue's cost per message
// falls. The task is only how they travel: each message has its own entry in the
// ledger, its own outcome and its own ID, <task>.<index>. One that fails for now, or for
// good, leaves the bulk task and goes on as a task of its own under that ID. So a bulk
// task always completes in the end, unless nothing can be sent at all.

// putBulk enqueues messages as one task.
func putBulk(ctx context.Context, client *producer, payloads []*wire.Payload, id string, opts ...asynq.Option) error {
	var lines []byte
	for i, p := range payloads {
		p, err := client.contents.hold(ctx, p, taskKey(queueOf(opts), id))
		if err != nil {
			return err
		}
		if lines, err = p.Append(lines); err != nil {
			return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
		}
		lines = append(lines, '\n')
		if i == 0 {
			lines = slices.Grow(lines, len(lines)*len(payloads)) // the others are much the same
		}
	}
	return putTask(ctx, client, asynq.NewTaskWithHeaders(wire.TaskTypeBulk, lines, payloads[0].Headers), id, opts...)
}

// handOverMass enqueues messages as one task under the given ID. That the ID is there
// already is success, as for enqueue.
func (q *Queue) handOverBulk(ctx context.Context, payloads []*wire.Payload, id string) error {
	name := q.queueOf(id)
	name.Bulk = true
	err := traced(ctx, q.cfg.Tracer, name.Queue, id, func(ctx context.Context, headers map[string]string) error {
		payloads[0].Headers = headers
		return putBulk(ctx, q.client, payloads, id, q.taskOptions(name.String(), payloads[0].DueAt)...)
	})
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}
