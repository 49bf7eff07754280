package tasks

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// ProcessTask is asynq's handler: it hands a task's message, or messages, to the senders
// and waits for their outcome. asynq stores the text of the error, and its tools show that to
// whoever can reach them: so no address is in it, and of a panic only what Go says itself.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			what := "tasks: the worker panicked: " + panicked(p)
			w.log.Error().Bytes("stack", debug.Stack()).Msg(what)
			err = errors.New(what)
		}
		if err != nil {
			err = &storedError{err}
		}
	}()
	return w.process(ctx, task)
}

// storedError is an error as asynq stores it.
type storedError struct{ cause error }

func (e *storedError) Error() string { return redact.Reason(e.cause.Error(), false) }
func (e *storedError) Unwrap() error { return e.cause }

func (w *Worker) process(ctx context.Context, task *asynq.Task) error {
	t := newTicket(ctx, task)
	release, ok := w.inHand.take(ctx, t.key)
	if !ok {
		return errGivenBack
	}
	defer release()
	defer w.asynq.Forget(t.key)
	defer func() {
		if errors.Is(ctx.Err(), context.Canceled) && w.alone.stopping.Err() == nil {
			w.alone.forgive(ctx, t.key) // its lease was lost
		}
	}()
	if lost := w.alone.lost(t.key); lost > 0 {
		return w.processAlone(ctx, t, lost)
	}
	leave, ok := w.alone.enter(ctx)
	if !ok {
		return errGivenBack
	}
	defer leave()
	if task.Type() == wire.TaskTypeBulk {
		return w.processMass(ctx, t)
	}
	return w.processOne(ctx, t)
}

func (w *Worker) processOne(ctx context.Context, t *ticket) error {
	if w.ledger.hasLeft(ctx, t) != nil {
		return errGivenBack
	}
	t.span = w.startSpan(ctx, t)
	defer t.span.done("", nil)
	o, err := w.try(ctx, t)
	if err != nil {
		return err
	}
	if o, err = w.settle(ctx, t, o); err != nil {
		return err
	}
	if o.verdict.action == complete || o.verdict.action == drop {
		w.blobs.ended(t.key, t.payload)
	}
	if !t.told() {
		w.ended(t, o)
	}
	return o.verdict.taskError()
}

// try reads the message and sends it.
func (w *Worker) try(ctx context.Context, t *ticket) (outcome, error) {
	if reason := t.task.Headers()[wire.HeaderDied]; reason != "" {
		return dead(errors.New(reason)), nil
	}
	p, err := wire.Decode(t.task.Payload(), t.task.Headers())
	if err != nil {
		return dead(err), nil
	}
	t.payload = p
	return w.await(ctx, t)
}

// told says whether the failure of a message was told when it happened, in the mass task
// that it comes from.
func (t *ticket) told() bool {
	return t.payload != nil && t.payload.Refused != "" && len(t.payload.Recipients) == 0
}

func dead(reason error) outcome { return outcome{verdict: verdict{action: deadLetter, reason: reason}} }

// await offers the message to the senders until one has sent it. It gives up in time
// before asynq takes the task away, unless the message is on the wire: then only its
// outcome counts.
func (w *Worker) await(ctx context.Context, t *ticket) (outcome, error) {
	if o, ok := w.hopeless(t); ok {
		return o, nil
	}
	l, ok := w.lanes[t.payload.Using]
	if !ok {
		return dead(unknownHere(t.payload.Using)), nil
	}
	if t.name.Mailer != l.mailer {
		return w.forward(ctx, t, l)
	}
	inTime, cancel := w.inTime(ctx, w.policy.expiry(t.attempt()))
	defer cancel()
	release, ok := l.room(inTime, t.name, t)
	if !ok {
		return w.outOfTime(t)
	}
	defer release()
	if err := w.blobs.fill(inTime, t.payload); mailer.ClassOf(err) == mailer.Unavailable {
		return w.outOfTime(t)
	} else if err != nil {
		return outcome{verdict: w.policy.decide(err, t.attempt())}, nil
	}
	done, room := make(chan *job, 1), w.roomFor(t)
	j := newJob(t, done)
	select {
	case l.way(t.name) <- []*job{j}:
	case <-inTime.Done():
		return w.outOfTime(t)
	case <-room:
		return w.outOfTime(t)
	}
	select {
	case <-done:
	case <-inTime.Done():
		if j.giveUp() {
			return w.outOfTime(t)
		}
		<-done
	case <-room:
		if j.giveUp() {
			return w.outOfTime(t)
		}
		<-done
	}
	if j.outcome.verdict.action == hold { // it was put back, and is wanted back
		return w.outOfTime(t)
	}
	return j.outcome, nil
}

// roomFor is closed when the task is to make room for one that is to be alone.
func (w *Worker) roomFor(t *ticket) <-chan struct{} {
	if t.alone {
		return nil
	}
	return w.alone.roomWanted()
}

// outOfTime is what becomes of a message that was not on the wire in time: it has
// expired, or it is given back.
func (w *Worker) outOfTime(t *ticket) (outcome, error) {
	if reason := w.expired(t); reason != nil {
		return dead(reason), nil
	}
	return outcome{}, errGivenBack
}

// expired tells why a message may not be sent any more, and what it has waited for.
func (w *Worker) expired(t *ticket) error {
	a := t.attempt()
	a.now = time.Now()
	reason := w.policy.expired(a, 0)
	if reason == nil {
		return nil
	}
	if l, ok := w.lanes[t.payload.Using]; ok {
		if held := l.breaker.held(); held != nil {
			return fmt.Errorf("%w: %w", reason, held)
		}
	}
	return reason
}

// hopeless tells what becomes of a message that need not be tried.
func (w *Worker) hopeless(t *ticket) (outcome, bool) {
	if t.payload.Refused != "" {
		return dead(errors.New(t.payload.Refused)), true
	}
	if reason := w.expired(t); reason != nil {
		return dead(reason), true
	}
	return outcome{}, false
}

func unknownHere(mailer string) error {
	return fmt.Errorf("mailer %q is not configured where this worker runs", mailer)
}

// inTime ends at expiry, or when a batch that began then could still end before asynq's
// time for the task is up.
func (w *Worker) inTime(ctx context.Context, expiry time.Time) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		if end := deadline.Add(-w.cfg.BatchTimeout - w.cfg.ReplyTimeout); end.Before(expiry) {
			expiry = end
		}
	}
	return context.WithDeadline(ctx, expiry)
}

// forward moves a task to the queue of the mailer that its message names: its producer
// did not know that there is one. Its ID stays, so doing it twice does it once.
func (w *Worker) forward(ctx context.Context, t *ticket, l *lane) (outcome, error) {
	o, err := w.decided(ctx, t, outcome{forwarded: true})
	if err != nil || !o.forwarded {
		return o, err
	}
	opts, err := w.movingOptions(t, l)
	if err != nil {
		return o, err
	}
	err = enqueue(ctx, w.client, t.payload, t.id, opts...)
	if mailer.ClassOf(err) == mailer.Permanent { // an attachment is lost
		return outcome{verdict: w.policy.decide(err, t.attempt())}, nil
	}
	return o, err
}

// movingOptions are the options of a task that goes on in the queue of another lane.
func (w *Worker) movingOptions(t *ticket, l *lane) ([]asynq.Option, error) {
	info, err := asynq.NewInspectorFromRedisClient(w.redis).GetTaskInfo(t.queue, t.id)
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	name := t.name
	name.Mailer = l.mailer
	opts := []asynq.Option{asynq.Queue(name.String()), asynq.MaxRetry(info.MaxRetry), asynq.Timeout(info.Timeout)}
	if info.Retention > 0 {
		opts = append(opts, asynq.Retention(info.Retention))
	}
	return opts, nil
}
