package tasks

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// ticket is a message of a task as the handler sees it.
type ticket struct {
	task     *asynq.Task
	id       string // the message's: the task's, with the index in a mass task
	queue    string // asynq's
	name     wire.QueueName
	key      string // of the task in Redis
	index    int    // in a mass task
	slot     string // what the message's fields of the task's record end in: "" if it has the task to itself
	token    string // names this try
	retried  int    // as asynq counts
	maxRetry int
	started  time.Time
	timeout  time.Duration // of the task, in whole seconds
	payload  *wire.Payload // nil if it cannot be read
	alone    bool          // it runs with nothing else in the process
	span     *span
}

func newTicket(ctx context.Context, task *asynq.Task) *ticket {
	t := &ticket{task: task, token: rand.Text()[:12], started: time.Now()}
	t.id, _ = asynq.GetTaskID(ctx)
	t.queue, _ = asynq.GetQueueName(ctx)
	t.name, t.key = wire.ParseQueueName(t.queue), asynqbatch.TaskKey(t.queue, t.id)
	t.retried, _ = asynq.GetRetryCount(ctx)
	t.maxRetry, _ = asynq.GetMaxRetry(ctx)
	t.maxRetry -= spareRetry
	if deadline, ok := ctx.Deadline(); ok {
		t.timeout = deadline.Sub(t.started).Round(time.Second)
	}
	return t
}

// tries is how many the message had before this one.
func (t *ticket) tries() int { return t.retried + t.payload.Spent }

func (t *ticket) attempt() attempt {
	a := attempt{
		now: t.started, due: t.payload.DueAt,
		retried: t.tries(), maxRetry: t.maxRetry,
		failSilently: t.payload.Message.FailSilently, atMostOnce: t.payload.AtMostOnce,
	}
	if t.payload.Deadline != nil {
		a.deadline = *t.payload.Deadline
	}
	return a
}

func (t *ticket) message() *mailer.EmailMessage {
	if len(t.payload.Recipients) > 0 {
		return t.payload.Message.WithRecipients(t.payload.Recipients)
	}
	return t.payload.Message
}

// ended makes of the outcome of a try what log and observers are told.
func (t *ticket) ended(o outcome) Outcome {
	out := Outcome{
		Action: o.action(), TaskID: t.id, Queue: t.name.Queue, Shard: t.name.Shard, Mailer: t.name.Mailer, Try: t.retried + 1, Sender: o.sender, Conn: o.result.Connection,
		Reply: o.result.Reply, Refused: o.result.Refused, Err: o.verdict.reason, RetryIn: o.verdict.delay,
		Took: time.Since(t.started),
	}
	if p := t.payload; p != nil {
		out.MessageID, out.Try, out.Waited = p.Message.MessageID, t.tries()+1, max(t.started.Sub(p.DueAt), 0)
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
