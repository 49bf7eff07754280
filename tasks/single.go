package tasks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/letters"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
)

// processOne runs a task of one message.
func (w *Worker) processOne(ctx context.Context, t *taskMessage) error {
	if w.ledger.hasLeft(ctx, t) != nil {
		return givenBack(BackRedis)
	}
	t.startSpan(ctx, w.cfg.Tracer)
	defer t.endSpan()
	o, err := w.try(ctx, t)
	if err != nil {
		return err
	}
	if o, err = w.settle(ctx, t, o); err != nil {
		return err
	}
	w.recorder.record(ctx, t, o)
	if o.verdict.Action == complete || o.verdict.Action == drop {
		w.blobs.Ended(t.key, t.payload)
	}
	if !t.reported() {
		w.ended(t, o)
	}
	return taskError(o.verdict)
}

// try reads the message and sends it.
func (w *Worker) try(ctx context.Context, t *taskMessage) (outcome, error) {
	if reason := t.task.Headers()[wire.HeaderDied]; reason != "" {
		return dead(errors.New(reason)), nil
	}
	p, err := w.codec.Decode(t.task.Payload(), t.task.Headers())
	if err != nil {
		return dead(err), nil
	}
	t.payload = p
	t.handed.belongs(p.Mailing)
	return w.await(ctx, t)
}

// await offers the message to the senders until one has sent it. It gives up when the worker
// has kept the task for long enough, unless the message is on the wire: then only its
// outcome counts.
func (w *Worker) await(ctx context.Context, t *taskMessage) (outcome, error) {
	if o, ok := w.hopeless(t); ok {
		return o, nil
	}
	via, ok := w.dispatchers[t.payload.Using]
	if !ok {
		return dead(unknownHere(t.payload.Using)), nil
	}
	if t.name.Mailer != via.mailer {
		return w.forward(ctx, t, via)
	}
	inTime, cancel := w.inTime(ctx, t, w.policy.Expiry(t.attempt()))
	defer cancel()
	if why, err := w.itsPlace(inTime, t, via); err != nil || why != "" {
		return w.notNow(t, via, why, err)
	}
	release, ok := via.room(inTime, t, t)
	if !ok {
		return w.outOfTime(t, via, BackMemory)
	}
	defer release()
	if err := w.fill(inTime, t, via, t.payload); mailer.ClassOf(err) == mailer.Unavailable {
		return w.outOfTime(t, via, BackContents)
	} else if err != nil {
		return outcome{verdict: w.policy.Decide(err, t.attempt())}, nil
	}
	return w.offer(inTime, t, via)
}

// offer offers the message to the senders until one has sent it, or it is to go back. If the mailer has members it goes on to
// another one while nothing of it is on the wire and its member takes no mail.
func (w *Worker) offer(inTime context.Context, t *taskMessage, via *dispatcher) (outcome, error) {
	o := offering{done: make(chan *delivery, 1), room: w.roomFor(t), tripping: via.holdsNow()}
	for {
		to, _, ok := via.way(1)
		if !ok {
			return w.outOfTime(t, via, BackHeld)
		}
		d := newDelivery(t, o.done)
		why, through := o.wait(inTime, t, d, to)
		to.leave(1)
		switch {
		case through && d.outcome.lost:
			return outcome{}, errNotOurs
		case through && d.outcome.paused != "":
			t.handed.haltLike(d.outcome.paused)
			return w.outOfTime(t, via, BackPaused)
		case through && d.outcome.verdict.Action != hold:
			return d.outcome, nil
		case why == "" && to.away == nil: // it was put back, and is wanted back: the relay takes nothing
			return w.outOfTime(t, via, BackHeld)
		case why != "":
			return w.outOfTime(t, via, why)
		}
		t.handed.waits()
	}
}

// offering is a message that is offered to senders, and what ends that.
type offering struct {
	done     chan *delivery
	room     <-chan struct{}
	tripping <-chan struct{}
}

// wait offers the message one way, and waits for what becomes of it: its outcome if it is through; if not, why it is to go back, ""
// if it is to go another way.
func (o offering) wait(inTime context.Context, t *taskMessage, d *delivery, to way) (why BackReason, through bool) {
	channel := to.to.channel(t.name)
	for waits := true; waits; {
		waits = false
		select {
		case channel <- []*delivery{d}:
			channel, waits = nil, true // a sender has it
		case <-o.done:
			return "", true
		case <-to.away:
		case <-inTime.Done():
			why = BackTime
		case <-o.room:
			why = BackAlone
		case <-o.tripping:
			why = BackHeld
		case <-t.handed.halt:
			why = BackPaused
		}
	}
	if d.giveUp() {
		return why, false
	}
	t.stays()
	<-o.done
	return why, true
}

// fill gets the contents of messages that are stored beside the queue, until what is not on the wire is to go back.
func (w *Worker) fill(ctx context.Context, t *taskMessage, via *dispatcher, p *wire.Payload) error {
	if len(p.Blobs) == 0 {
		return nil
	}
	ctx, cancel := via.untilBack(ctx, t)
	defer cancel()
	return w.blobs.Fill(ctx, p)
}

// itsPlace waits until the message may go by the domains of its recipients. If it is not to wait here, the error says for how
// long it is put back, and why says that something else has ended the wait.
func (w *Worker) itsPlace(ctx context.Context, t *taskMessage, via *dispatcher) (why BackReason, err error) {
	places, err := via.rates.places(ctx, []*taskMessage{t})
	switch {
	case ctx.Err() != nil:
		return BackTime, nil
	case err != nil:
		return BackRedis, nil
	case places[0].Back > 0:
		return "", &givenBackError{why: BackRate, delay: places[0].Back, later: true}
	case places[0].Wait == 0:
		return "", nil
	}
	ctx, cancel := via.untilBack(ctx, t)
	defer cancel()
	select {
	case <-time.After(places[0].Wait):
		return "", nil
	case <-ctx.Done():
	}
	if closed(t.handed.halt) {
		return BackPaused, nil
	}
	return BackTime, nil
}

// notNow is what becomes of a message that does not come to a sender now, by err or for why.
func (w *Worker) notNow(t *taskMessage, via *dispatcher, why BackReason, err error) (outcome, error) {
	if err != nil && w.expired(t) == nil {
		return outcome{}, err
	}
	return w.outOfTime(t, via, why)
}

// outOfTime is what becomes of a message that does not come to the wire: it has expired, or it is given back.
func (w *Worker) outOfTime(t *taskMessage, via *dispatcher, why BackReason) (outcome, error) {
	if reason := w.expired(t); reason != nil {
		return dead(reason), nil
	}
	return outcome{}, cmp.Or(via.goesBack(), givenBack(via.waitsFor(why)))
}

// roomFor is closed when the task is to make room for one that is to be alone.
func (w *Worker) roomFor(t *taskMessage) <-chan struct{} {
	if t.alone {
		return nil
	}
	return w.isolation.RoomNeeded()
}

// expired returns why a message may not be sent any more, and what it has waited for.
func (w *Worker) expired(t *taskMessage) error {
	a := t.attempt()
	a.Now = time.Now()
	reason := w.policy.Expired(a, 0)
	if reason == nil {
		return nil
	}
	if via, ok := w.dispatchers[t.payload.Using]; ok {
		if held := via.held(); held != nil {
			return fmt.Errorf("%w; %w", held, reason)
		}
	}
	return reason
}

// hopeless returns what becomes of a message that need not be tried.
func (w *Worker) hopeless(t *taskMessage) (outcome, bool) {
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

// inTime ends at expiry, or when a batch that began then could still end before the worker is to
// have given the task back.
func (w *Worker) inTime(ctx context.Context, t *taskMessage, expiry time.Time) (context.Context, context.CancelFunc) {
	if end := t.started.Add(w.cfg.TaskTimeout - w.cfg.BatchTimeout - w.cfg.ReplyTimeout); end.Before(expiry) {
		expiry = end
	}
	return context.WithDeadline(ctx, expiry)
}

// forward moves a task to the queue of the mailer that its message names: its producer
// did not know that there is one. Its ID stays, so doing it twice does it once.
func (w *Worker) forward(ctx context.Context, t *taskMessage, via *dispatcher) (outcome, error) {
	o, err := w.ledger.decided(ctx, t, outcome{forwarded: true})
	if err != nil || !o.forwarded {
		return o, err
	}
	to := t.name
	to.Mailer = via.mailer
	// If it was there before, and its worker died when it had put it there, it may have been cancelled.
	if cancelled, err := once.WasTakenBack(ctx, w.redis, to, t.base()); err != nil || cancelled {
		return outcome{verdict: verdict{Action: drop}}, err
	}
	opts, err := w.movingOptions(t, to)
	if err != nil {
		return o, err
	}
	if t.payload.Digest == "" {
		err = w.client.Enqueue(ctx, t.payload, t.id, opts...)
	} else {
		err = w.forwardOnce(ctx, t, to, opts)
	}
	if mailer.ClassOf(err) == mailer.Permanent { // an attachment is lost, or the key belongs to another message
		return outcome{verdict: w.policy.Decide(err, t.attempt())}, nil
	}
	return o, err
}

// forwardOnce puts a message that is to be handed over once where its mailer's are. If that has
// it already, even as a dead letter, nothing is left to do. Nor is if it was there and was cancelled, of which the mark in its place
// tells also where it had been given another time: the key's next task is another hand-over.
func (w *Worker) forwardOnce(ctx context.Context, t *taskMessage, to wire.QueueName, opts []asynq.Option) error {
	task := once.Task{
		Redis: w.redis, Place: to, ID: t.id, Key: t.id, Using: t.payload.Using, Digest: t.payload.Digest,
		Held: once.HeldAtMost, Kept: w.cfg.MaxAge + once.ReplayedFor,
	}
	_, err := task.HandOver(ctx, false, func(id string) error {
		if id != t.id {
			return nil
		}
		return w.client.Put(ctx, t.payload, id, opts...)
	})
	if dead := new(mailer.DeadLetterError); errors.As(err, &dead) {
		return nil
	}
	return err
}

// movingOptions are the options of a task that goes on in the queue of another mailer.
func (w *Worker) movingOptions(t *taskMessage, to wire.QueueName) ([]asynq.Option, error) {
	info, err := asynq.NewInspectorFromRedisClient(w.redis).GetTaskInfo(t.queue, t.id)
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	opts := []asynq.Option{asynq.Queue(to.String()), asynq.MaxRetry(info.MaxRetry), asynq.Timeout(info.Timeout)}
	if info.Retention > 0 {
		opts = append(opts, asynq.Retention(info.Retention))
	}
	return opts, nil
}

// settle does what an outcome asks for beside the task's own end: the recipients that
// were refused live on as tasks of their own, older dead letters make room for a new
// one, and the relay's reply is kept. It comes before the task's end, so that a crash
// between the two repeats and never loses. The outcome may turn out to be another one.
func (w *Worker) settle(ctx context.Context, t *taskMessage, o outcome) (outcome, error) {
	if o.verdict.Action == deadLetter && o.result.Err == nil { // it was not on the wire
		var err error
		if o, err = w.ledger.decided(ctx, t, o); err != nil {
			return o, err
		}
	}
	if o.verdict.Action == deadLetter {
		return o, letters.Rescue(ctx, w.redis, t.queue, t.id, redact.Reason(o.verdict.Reason.Error(), true))
	}
	if o.verdict.Action == retry {
		w.noteTry(ctx, t, o.verdict.Reason)
	}
	if len(o.result.Refused) > 0 {
		if err := w.keepRefused(ctx, t, o); err != nil {
			return o, err
		}
		// If the task comes back they are not to be enqueued again: they may have their mail by then.
		if err := w.ledger.note(ctx, t, o.settled()); err != nil {
			return o, err
		}
	}
	if o.verdict.Action == complete && t.payload.KeepResult {
		w.keepResult(t, wire.NewResult(o.result))
	}
	return o, nil
}

func (w *Worker) keepResult(t *taskMessage, result any) {
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
func (w *Worker) keepRefused(ctx context.Context, t *taskMessage, o outcome) error {
	later, never := deliverypolicy.Remainders(o.result.Refused, t.payload.Message.FailSilently)
	if len(later) > 0 {
		p, delay := *t.payload, w.policy.delayOf(later, o.soon)
		p.Recipients = recipientsOf(later)
		if err := w.enqueueRemainder(ctx, t, &p, deliverypolicy.SuffixLater, asynq.ProcessIn(delay)); err != nil {
			return fmt.Errorf("tasks: recipients to try again: %w", err)
		}
		w.awaitRetry(ctx, t, deliverypolicy.SuffixLater, deliverypolicy.RefusedReason(later))
	}
	if len(never) > 0 {
		p := *t.payload
		p.Recipients, p.Refused = recipientsOf(never), redact.Reason(deliverypolicy.RefusedReason(never).Error(), true)
		if err := w.enqueueRemainder(ctx, t, &p, deliverypolicy.SuffixNever); err != nil {
			return fmt.Errorf("tasks: refused recipients: %w", err)
		}
	}
	return nil
}

// recipientsOf are the addresses that were refused.
func recipientsOf(refused []*mailer.SendError) []string {
	list := make([]string, len(refused))
	for i, e := range refused {
		list[i] = e.Recipient
	}
	return list
}

// noteTryScript writes a field of a task that is there.
const noteTryScript = `
if redis.call("HEXISTS", KEYS[1], "state") == 1 then redis.call("HSET", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

// noteTry notes a try that has failed, for people who look at the message. It is no harm if that cannot be done.
func (w *Worker) noteTry(ctx context.Context, t *taskMessage, reason error) {
	if n := t.tries() + 1; n <= letters.MaxTries {
		field, note := letters.TryNote(n, time.Now(), reason)
		_ = w.redis.Eval(ctx, noteTryScript, []string{t.key}, field, note).Err()
	}
}

// awaitRetry notes of a task that enqueueRemainder has made why its message was put off, and lets it wait among those that
// are tried again. Where that cannot be done it waits among the scheduled ones, for as long.
func (w *Worker) awaitRetry(ctx context.Context, t *taskMessage, suffix string, reason error) {
	name := t.name
	name.Bulk = false
	now := time.Now()
	field, note := letters.TryNote(t.tries()+1, now, reason)
	_ = asynqbatch.AwaitRetry(ctx, w.redis, name.String(), t.payload.BaseID(t.id)+suffix, redact.Reason(reason.Error(), false), now,
		field, note)
}

// enqueueRemainder enqueues what is left of a message as a task of its own, which waits
// beside the one that it comes from.
func (w *Worker) enqueueRemainder(ctx context.Context, t *taskMessage, p *wire.Payload, suffix string, opts ...asynq.Option) error {
	name := t.name
	name.Bulk = false
	opts = append(opts, asynq.Queue(name.String()), asynq.MaxRetry(t.maxRetry+spareRetry), asynq.Timeout(t.timeout))
	return w.client.Enqueue(ctx, p, t.payload.BaseID(t.id)+suffix, opts...)
}
