package tasks

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/mailer"
)

// ticket is a task as the handler sees it.
type ticket struct {
	task     *asynq.Task
	id       string
	queue    string
	retried  int
	maxRetry int
	started  time.Time
	payload  *payload
}

func (w *Worker) ticket(ctx context.Context, task *asynq.Task) ticket {
	t := ticket{task: task, started: time.Now()}
	t.id, _ = asynq.GetTaskID(ctx)
	t.queue, _ = asynq.GetQueueName(ctx)
	t.retried, _ = asynq.GetRetryCount(ctx)
	t.maxRetry, _ = asynq.GetMaxRetry(ctx)
	t.maxRetry -= spareRetry
	return t
}

func (t ticket) attempt() attempt {
	a := attempt{
		now: t.started, due: t.payload.DueAt,
		retried: t.retried, maxRetry: t.maxRetry,
		failSilently: t.payload.Message.FailSilently, atMostOnce: t.payload.AtMostOnce,
	}
	if t.payload.Deadline != nil {
		a.deadline = *t.payload.Deadline
	}
	return a
}

func (t ticket) message() *mailer.EmailMessage {
	if len(t.payload.Recipients) > 0 {
		return t.payload.Message.WithRecipients(t.payload.Recipients)
	}
	return t.payload.Message
}

// forward moves a task to the queue of the mailer that its message names: its producer
// did not know that there is one. Its ID stays, so doing it twice does it once.
func (w *Worker) forward(ctx context.Context, t ticket, queue string) (outcome, error) {
	info, err := asynq.NewInspectorFromRedisClient(w.redis).GetTaskInfo(t.queue, t.id)
	if err != nil {
		return outcome{}, unavailable(err)
	}
	opts := []asynq.Option{asynq.Queue(queue), asynq.MaxRetry(info.MaxRetry), asynq.Timeout(info.Timeout)}
	if info.Retention > 0 {
		opts = append(opts, asynq.Retention(info.Retention))
	}
	if err := w.decided(ctx, t); err != nil {
		return outcome{}, err
	}
	err = enqueue(ctx, w.client, t.payload, t.id, opts...)
	if mailer.ClassOf(err) == mailer.Permanent { // an attachment is lost
		return outcome{verdict: w.policy.decide(err, t.attempt())}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	return outcome{verdict: verdict{action: complete}, forwarded: true}, nil
}

// resultRecord is what a completed task shows while its retention lasts.
type resultRecord struct {
	Reply   string   `json:"reply"`
	Refused []string `json:"refused,omitempty"`
}

// settle does what an outcome asks for beside the task's own end: the recipients that
// were refused live on as tasks of their own, older dead letters make room for a new
// one, and the relay's reply is kept. It comes before the task's end, so that a crash
// between the two repeats and never loses.
func (w *Worker) settle(ctx context.Context, t ticket, o outcome) error {
	if o.verdict.action == deadLetter {
		if o.result.Err == nil { // it was not on the wire
			if err := w.decided(ctx, t); err != nil {
				return err
			}
		}
		return rescue(ctx, w.redis, t.queue)
	}
	if err := w.keepRefused(ctx, t, o.result.Refused); err != nil {
		return err
	}
	if o.verdict.action != complete || !t.payload.KeepResult {
		return nil
	}
	record := resultRecord{Reply: o.result.Reply}
	for _, r := range o.result.Refused {
		record.Refused = append(record.Refused, r.Error())
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if _, err := t.task.ResultWriter().Write(data); err != nil {
		w.log.Warn().Err(err).Str("task", t.id).Msg("the result could not be kept")
	}
	return nil
}

// keepRefused enqueues the recipients that were refused though the message was
// accepted for others. The temporary ones are tried again alone, with the same
// message; the others become a dead letter that says why. The IDs derive from the
// task's own, so doing it twice does it once.
func (w *Worker) keepRefused(ctx context.Context, t ticket, refused []*mailer.SendError) error {
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
		never.Refused = strings.Join(reasons, "; ")
		if err := w.enqueueRest(ctx, t, &never, "-refused"); err != nil {
			return fmt.Errorf("tasks: refused recipients: %w", err)
		}
	}
	return nil
}

func (w *Worker) enqueueRest(ctx context.Context, t ticket, p *payload, suffix string, opts ...asynq.Option) error {
	opts = append(opts, asynq.Queue(t.queue), asynq.MaxRetry(t.maxRetry+spareRetry))
	return enqueue(ctx, w.client, p, t.payload.stem(t.id)+suffix, opts...)
}

// ended makes of the outcome of a try what log and observers are told. Held is none: the
// try is not over.
func (t ticket) ended(o outcome) Outcome {
	out := Outcome{
		Action: o.action(), TaskID: t.id, Queue: plainQueue(t.queue), Try: t.retried + 1, Sender: o.sender,
		Reply: o.result.Reply, Refused: o.result.Refused, Err: o.verdict.reason, RetryIn: o.verdict.delay,
		Took: time.Since(t.started),
	}
	if p := t.payload; p != nil {
		out.MessageID, out.Mailer, out.Waited = p.Message.MessageID, p.Using, max(t.started.Sub(p.DueAt), 0)
	}
	return out
}

func (o outcome) action() Action {
	switch o.verdict.action {
	case retry:
		return ActionRetry
	case deadLetter:
		return ActionDead
	case drop:
		return ActionCancelled
	case complete, hold:
	}
	switch {
	case o.verdict.reason != nil:
		return ActionSilent
	case o.forwarded:
		return ActionForwarded
	case o.again:
		return ActionSentBefore
	case o.result.Skipped:
		return ActionSkipped
	}
	return ActionSent
}
