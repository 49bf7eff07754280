package tasks

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// settle does what an outcome asks for beside the task's own end: the recipients that
// were refused live on as tasks of their own, older dead letters make room for a new
// one, and the relay's reply is kept. It comes before the task's end, so that a crash
// between the two repeats and never loses. The outcome may turn out to be another one.
func (w *Worker) settle(ctx context.Context, t *ticket, o outcome) (outcome, error) {
	if o.verdict.action == deadLetter && o.result.Err == nil { // it was not on the wire
		var err error
		if o, err = w.decided(ctx, t, o); err != nil {
			return o, err
		}
	}
	if o.verdict.action == deadLetter {
		return o, rescue(ctx, w.redis, t.queue, t.id, redact.Reason(o.verdict.reason.Error(), true))
	}
	if len(o.result.Refused) > 0 {
		if err := w.keepRefused(ctx, t, o.result.Refused); err != nil {
			return o, err
		}
		// If the task comes back they are not to be enqueued again: they may have their mail by then.
		if err := w.ledger.note(ctx, t, wire.Record{Reply: o.result.Reply}); err != nil {
			return o, err
		}
	}
	if o.verdict.action == complete && t.payload.KeepResult {
		w.keepResult(t, wire.NewResult(o.result))
	}
	return o, nil
}

func (w *Worker) keepResult(t *ticket, result any) {
	data, err := json.Marshal(result)
	if err == nil {
		_, err = t.task.ResultWriter().Write(data)
	}
	if err != nil {
		w.log.Warn().Err(err).Str("task", t.id).Msg("the result could not be kept")
	}
}

// keepRefused enqueues the recipients that were refused though the message was
// accepted for others. The temporary ones are tried again alone, with the same
// message; the others become a dead letter that says why. The IDs derive from the
// message's own, so doing it twice does it once.
func (w *Worker) keepRefused(ctx context.Context, t *ticket, refused []*mailer.SendError) error {
	if len(refused) == 0 || t.payload.Message.FailSilently {
		return nil
	}
	later, never := *t.payload, *t.payload
	later.Recipients, never.Recipients = nil, nil
	var reasons []string
	for _, r := range refused {
		if r.Class == mailer.Permanent {
			never.Recipients = append(never.Recipients, r.Recipient)
			reasons = append(reasons, r.Error())
			continue
		}
		later.Recipients = append(later.Recipients, r.Recipient)
	}
	if len(later.Recipients) > 0 {
		delay := w.policy.delay(0)
		if err := w.enqueueRest(ctx, t, &later, "-later", asynq.ProcessIn(delay)); err != nil {
			return fmt.Errorf("tasks: recipients to try again: %w", err)
		}
	}
	if len(never.Recipients) > 0 {
		never.Refused = redact.Reason(strings.Join(reasons, "; "), true)
		if err := w.enqueueRest(ctx, t, &never, "-refused"); err != nil {
			return fmt.Errorf("tasks: refused recipients: %w", err)
		}
	}
	return nil
}

// enqueueRest enqueues what is left of a message as a task of its own, which waits
// beside the one that it comes from.
func (w *Worker) enqueueRest(ctx context.Context, t *ticket, p *wire.Payload, suffix string, opts ...asynq.Option) error {
	name := t.name
	name.Bulk = false
	opts = append(opts, asynq.Queue(name.String()), asynq.MaxRetry(t.maxRetry+spareRetry), asynq.Timeout(t.timeout))
	return enqueue(ctx, w.client, p, t.payload.BaseID(t.id)+suffix, opts...)
}
