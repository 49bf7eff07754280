package tasks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// bulkRun is one run of a bulk task.
type bulkRun struct {
	w        *Worker
	task     *taskMessage
	messages []*taskMessage
	results  []wire.Result     // if they are to be kept
	records  []byte            // for the history, which gets them with the end of the task, unless that takes long
	since    time.Time         // of the first of them
	untold   []asynqbatch.Step // events that Redis may lack
	finished int
}

func (w *Worker) processBulk(ctx context.Context, t *taskMessage) (err error) {
	messages, errs := t.unpack(&w.codec)
	r := &bulkRun{w: w, task: t, messages: messages}
	defer func() { r.unended(ctx, err) }()
	via, lost := r.dispatcher()
	t.handed.belongs(r.mailing())
	defer r.endSpans()
	var left []*taskMessage // what is to be sent
	for i, m := range messages {
		o, settled := r.unsendable(m, via, errors.Join(errs[i], lost))
		if !settled {
			left = append(left, m)
		} else if err := r.settle(ctx, m, o); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		if err := r.sendAll(ctx, via, left); err != nil {
			return err
		}
	}
	return r.end(ctx)
}

// sendAll sends messages, and settles each. If one expires meanwhile the task is given back:
// the next run makes a dead letter of it and goes on with the others.
func (r *bulkRun) sendAll(ctx context.Context, via *dispatcher, left []*taskMessage) error {
	inTime, cancel := r.w.inTime(ctx, r.task, r.w.firstExpiry(left))
	defer cancel()
	left, places, err := r.byDomain(ctx, via, left)
	if err != nil || len(left) == 0 {
		return err
	}
	release, ok := via.room(inTime, r.task, left...)
	if !ok {
		return r.back(via, BackMemory)
	}
	defer release()
	deliveries := make([]*delivery, 0, len(left))
	done := make(chan *delivery, len(left))
	for i, m := range left {
		err := r.w.fill(inTime, r.task, via, m.payload)
		switch {
		case err == nil:
			m.startSpan(ctx, r.w.cfg.Tracer)
			d := newDelivery(m, done)
			d.from = places[i]
			deliveries = append(deliveries, d)
			continue
		case mailer.ClassOf(err) == mailer.Unavailable:
			return r.back(via, BackContents)
		}
		if err := r.settle(ctx, m, outcome{verdict: r.w.policy.Decide(err, m.attempt())}); err != nil {
			return err
		}
	}
	return r.send(ctx, inTime, via, deliveries, done)
}

// byDomain returns the messages that may go by the domains of their recipients, those that may first in front, and from when on. The others leave the task, and
// wait as tasks of their own: in this one they would keep it, and what its worker has room for, for as long as the last of them takes.
func (r *bulkRun) byDomain(ctx context.Context, via *dispatcher, all []*taskMessage) (left []*taskMessage, from []time.Time, err error) {
	places, err := via.rates.places(ctx, all)
	if err != nil {
		return nil, nil, r.back(via, BackRedis)
	}
	now := time.Now()
	for i, m := range all {
		if places[i].Back == 0 {
			continue
		}
		if _, err := r.leave(ctx, m, outcome{}, wire.Remainder{Spent: m.payload.Spent}, places[i].Back); errors.Is(err, errNotOurs) {
			return nil, nil, err
		} else if err != nil {
			return nil, nil, r.back(via, BackRedis)
		}
		r.finished++
		r.w.observers.back(GivenBack{Reason: BackRate, TaskID: m.id, Queue: m.name.Queue, Mailer: m.name.Mailer})
	}
	order := make([]int, 0, len(all))
	for i := range all {
		if places[i].Back == 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(places[a].Wait, places[b].Wait) })
	for _, i := range order {
		left, from = append(left, all[i]), append(from, now.Add(places[i].Wait))
	}
	return left, from, nil
}

// back gives the task back, with what of it is not through.
func (r *bulkRun) back(via *dispatcher, why BackReason) error {
	r.task.progress = r.finished
	return cmp.Or(via.goesBack(), givenBack(via.waitsFor(why)))
}

// firstExpiry is when the first of the messages expires.
func (w *Worker) firstExpiry(messages []*taskMessage) time.Time {
	first := w.policy.Expiry(messages[0].attempt())
	for _, m := range messages[1:] {
		if at := w.policy.Expiry(m.attempt()); at.Before(first) {
			first = at
		}
	}
	return first
}

// endSpans ends the spans of the messages that are given back.
func (r *bulkRun) endSpans() {
	for _, m := range r.messages {
		m.endSpan()
	}
}

// dispatcher is that of the messages, which all have the same mailer.
func (r *bulkRun) dispatcher() (*dispatcher, error) {
	for _, m := range r.messages {
		if m.payload == nil {
			continue
		}
		if via, ok := r.w.dispatchers[m.payload.Using]; ok {
			return via, nil
		}
		return nil, unknownHere(m.payload.Using)
	}
	return nil, nil
}

// mailing is that of the messages, which all have the same.
func (r *bulkRun) mailing() string {
	for _, m := range r.messages {
		if m.payload != nil {
			return m.payload.Mailing
		}
	}
	return ""
}

// unsendable returns what becomes of a message that is not to be sent here. unfit is why
// none can be.
func (r *bulkRun) unsendable(m *taskMessage, via *dispatcher, unfit error) (o outcome, settled bool) {
	if unfit != nil {
		return dead(unfit), true
	}
	if o, ok := r.w.hopeless(m); ok {
		return o, true
	}
	return outcome{forwarded: true}, m.name.Mailer != via.mailer // its producer did not know the mailer
}

// send gives the deliveries to the senders, spread over all of them, and settles each when it
// is through. Where time runs out it waits for what is on the wire and gives the task back.
func (r *bulkRun) send(ctx, inTime context.Context, via *dispatcher, deliveries []*delivery, done <-chan *delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	r.task.handed.has(len(deliveries))
	left, why := len(deliveries), BackHeld // the relay takes nothing if they are put back
	offers := newOffers(r.task, via, deliveries)
	defer offers.end()
	renew := func(d *delivery) *delivery {
		fresh := newDelivery(r.messages[d.index], d.done)
		fresh.from = d.from
		return fresh
	}
	var failure error
	over, room, tripping, halt := inTime.Done(), r.w.roomFor(r.task), via.holdsNow(), r.task.handed.halt
	giveBack := func(reason BackReason) {
		over, room, tripping, halt, why = nil, nil, nil, nil, reason
		failure = r.back(via, why)
		left -= offers.giveUp()
		if left > 0 {
			r.task.stays()
		}
	}
	for left > 0 {
		next, channel, due := offers.next()
		select {
		case <-due:
		case channel <- next:
			offers.taken()
		case <-offers.moves:
			offers.move(renew)
		case d := <-done:
			if d.outcome.verdict.Action == hold && d.outcome.paused == "" && !d.outcome.lost && failure == nil && via.route != nil {
				offers.again(d, renew(d)) // another member may take it
				continue
			}
			offers.through(d)
			left--
			if d.outcome.lost { // and so are the others
				giveBack(BackRedis)
				failure = errNotOurs
			} else if d.outcome.paused != "" {
				r.task.handed.haltLike(d.outcome.paused)
				if failure == nil {
					giveBack(BackPaused)
				}
			} else if d.outcome.verdict.Action == hold { // put back, when time was up
				if !errors.Is(failure, errNotOurs) {
					failure = r.back(via, why)
				}
			} else if err := r.settle(ctx, r.messages[d.index], d.outcome); err != nil {
				failure = err
			}
		case <-over:
			giveBack(BackTime)
		case <-room:
			giveBack(BackAlone)
		case <-tripping:
			giveBack(BackHeld)
		case <-halt:
			giveBack(BackPaused)
		}
	}
	return failure
}

// settle does what a message's outcome asks for. What is to be tried again or kept for
// a person leaves the task here.
func (r *bulkRun) settle(ctx context.Context, m *taskMessage, o outcome) error {
	if o.forwarded || o.verdict.Action == deadLetter && o.result.Err == nil { // it was not on the wire
		var err error
		if o, err = r.w.ledger.decided(ctx, m, o); errors.Is(err, errNotOurs) {
			return err
		} else if err != nil {
			return givenBack(BackRedis)
		}
	}
	if o.moved && o.remainder == nil {
		r.finished++
		return nil
	}
	if o.moved {
		if err := r.goOnAgain(ctx, m, *o.remainder); err != nil {
			return givenBack(BackRedis)
		}
		r.finished++
		return nil
	}
	o, err := r.moveOn(ctx, m, o)
	switch {
	case errors.Is(err, errNotOurs):
		return err
	case err != nil:
		r.w.log.Error().Err(err).Str("task", m.id).Msg("given back: what became of the message cannot be written down")
		return givenBack(BackRedis)
	}
	r.finished++
	r.record(ctx, m, o)
	if m.payload != nil && m.payload.KeepResult {
		if r.results == nil {
			r.results = make([]wire.Result, len(r.messages))
		}
		r.results[m.index] = wire.NewResult(o.result)
	}
	r.w.ended(m, o)
	return nil
}

// record keeps for the history what it is to have of a message that has ended here. What leaves the task has not. The records of a
// task go together: one by one they would cost a tenth of the rate. If the worker dies before that, the next run, which finds what
// was sent in the ledger, makes them again.
//
// Events of what was sent have gone with the ledger's entry, unless Redis could not be told of that.
func (r *bulkRun) record(ctx context.Context, m *taskMessage, o outcome) {
	var notes asynqbatch.Notes
	when := recordMissing
	switch o.action() {
	case ActionSent:
		notes, when = o.late, recordLate
	case ActionSentBefore, ActionSkipped:
		notes = r.w.recorder.ended(m, o)
	case ActionSilent: // the ledger has it, so another run would not say it again
		if record := r.w.recorder.ended(m, o).Record; record != "" {
			r.w.recorder.recordNow(ctx, m, asynqbatch.Notes{Record: record}, recordAlways)
		}
	default:
	}
	if notes.Events != "" {
		r.untold = append(r.untold, recordStep(m, asynqbatch.Notes{Events: notes.Events}, when))
	}
	if notes.Record == "" {
		return
	}
	if len(r.records) == 0 {
		r.since = time.Now()
	}
	r.records = append(r.records, notes.Record...)
	if len(r.records) > mostRecords || time.Since(r.since) > recordsWait {
		r.recordNow(ctx)
	}
}

// The records of a bulk task that go together are that many bytes, and wait that long, at most, about.
const (
	mostRecords = 64_000
	recordsWait = time.Second
)

func (r *bulkRun) recordNow(ctx context.Context) {
	if len(r.records) > 0 {
		r.w.recorder.recordNow(ctx, r.task, asynqbatch.Notes{Record: string(r.records)}, recordAlways)
		r.records = nil
	}
}

// tell writes the events that Redis may lack.
func (r *bulkRun) tell(ctx context.Context) (err error) {
	for _, a := range r.w.ledger.records.Do(ctx, r.untold) {
		err = cmp.Or(err, a.Err)
	}
	if err == nil {
		r.untold = nil
	}
	return err
}

// unended gives the history what it is to have of a task that goes back.
func (r *bulkRun) unended(ctx context.Context, err error) {
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordsWait)
	defer cancel()
	r.recordNow(ctx)
	_ = r.tell(ctx) // if they cannot be written now the next run does
}

// moveOn makes tasks of what is left of a message. The outcome may turn out to be another one: it was cancelled.
func (r *bulkRun) moveOn(ctx context.Context, m *taskMessage, o outcome) (outcome, error) {
	switch {
	case m.payload == nil:
		return r.leave(ctx, m, o, wire.Remainder{}, 0)
	case o.verdict.Action == retry:
		return r.leave(ctx, m, o, wire.Remainder{Spent: m.payload.Spent + 1}, o.verdict.Delay)
	case o.verdict.Action == deadLetter:
		return r.leave(ctx, m, o, wire.Remainder{Spent: m.payload.Spent + 1, Refused: redact.Reason(o.verdict.Reason.Error(), true)}, 0)
	case o.forwarded:
		return r.leave(ctx, m, o, wire.Remainder{Forwarded: true}, 0)
	case len(o.result.Refused) > 0:
		if err := r.w.keepRefused(ctx, m, o); err != nil {
			return o, err
		}
		return o, r.w.ledger.note(ctx, m, o.settled())
	case o.verdict.Reason != nil: // it has failed silently, once
		return o, r.w.ledger.noteWith(ctx, m, wire.Record{Moved: true}, r.w.recorder.ended(m, o).Events)
	}
	return o, nil
}

// leave makes a task of a message. How it goes on is noted in the ledger first: a worker
// that dies in between leaves that to the next run of the bulk task, and two workers that
// have it at the same time do it once. One that was cancelled is dropped.
func (r *bulkRun) leave(ctx context.Context, m *taskMessage, o outcome, how wire.Remainder, delay time.Duration) (outcome, error) {
	told := ""
	if o.verdict.Action == retry {
		told = r.w.recorder.ended(m, o).Events
	}
	left, other, err := r.w.ledger.leaves(ctx, m, how, told)
	switch {
	case err != nil:
		return o, err
	case left:
		return o, r.goOn(ctx, m, how, delay, o.verdict.Reason)
	case other.verdict.Action == drop:
		return other, nil
	}
	return o, errTaken
}

// errTaken is the error for a message about which another run of its bulk task has decided.
var errTaken = errors.New("another run of the task has decided about the message")

// goOnAgain is goOn for a message that an earlier run had begun to make a task of. If that
// was there it may have been cancelled.
func (r *bulkRun) goOnAgain(ctx context.Context, m *taskMessage, how wire.Remainder) error {
	name := m.name
	if name.Bulk = false; how.Forwarded {
		name.Mailer = m.payload.Using
	}
	cancelled, err := r.w.redis.Exists(ctx, wire.CancelledKey(name.String(), m.id)).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	if cancelled > 0 {
		return r.w.ledger.note(ctx, m, wire.Record{Moved: true})
	}
	return r.goOn(ctx, m, how, 0, nil)
}

// goOn enqueues the task of a message that leaves, which doing it twice does once.
func (r *bulkRun) goOn(ctx context.Context, m *taskMessage, how wire.Remainder, delay time.Duration, why error) error {
	if m.payload == nil {
		if err := r.keepUnreadable(ctx, m); err != nil {
			return err
		}
		return r.w.ledger.note(ctx, m, wire.Record{Moved: true})
	}
	p, to := *m.payload, *m
	if p.Spent, p.Refused = how.Spent, how.Refused; how.Forwarded {
		to.name.Mailer = p.Using
	}
	opts := []asynq.Option{asynq.ProcessIn(delay)}
	if p.KeepResult {
		task, err := asynq.NewInspectorFromRedisClient(r.w.redis).GetTaskInfo(m.queue, r.task.id)
		if err != nil {
			return redisconn.Unavailable(err)
		}
		opts = append(opts, asynq.Retention(task.Retention))
	}
	err := r.w.enqueueRemainder(ctx, &to, &p, "", opts...)
	if err == nil && delay > 0 && why != nil { // it is tried again
		r.w.awaitRetry(ctx, m, "", why)
	}
	if mailer.ClassOf(err) == mailer.Permanent { // an attachment is lost
		p.Refused = cmp.Or(p.Refused, err.Error())
		err = r.keepIncomplete(ctx, &to, &p)
	}
	if err != nil {
		return err
	}
	return r.w.ledger.note(ctx, m, wire.Record{Moved: true})
}

// keepIncomplete makes a dead letter of a message that has lost an attachment.
func (r *bulkRun) keepIncomplete(ctx context.Context, m *taskMessage, p *wire.Payload) error {
	data, err := p.Encode()
	if err != nil {
		return err
	}
	return r.putAside(ctx, m, asynq.NewTask(wire.TaskType, data))
}

// keepUnreadable makes a task of a message that cannot be read. It becomes a dead letter
// when a worker finds that out again, with its payload as it is.
func (r *bulkRun) keepUnreadable(ctx context.Context, m *taskMessage) error {
	line := slices.Collect(wire.Lines(m.task.Payload()))[m.index]
	return r.putAside(ctx, m, asynq.NewTask(wire.TaskType, bytes.TrimSpace(line)))
}

// putAside enqueues a task that is to become a dead letter.
func (r *bulkRun) putAside(ctx context.Context, m *taskMessage, task *asynq.Task) error {
	name := m.name
	name.Bulk = false
	err := r.w.client.PutTask(ctx, task, m.id, asynq.Queue(name.String()), asynq.MaxRetry(m.maxRetry+spareRetry), asynq.Timeout(m.timeout))
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// end is the end of the run: the task completes if every message is through.
func (r *bulkRun) end(ctx context.Context) error {
	if r.finished < len(r.messages) || r.tell(ctx) != nil {
		return givenBack(BackRedis)
	}
	for _, m := range r.messages {
		r.w.blobs.Ended(m.key, m.payload)
	}
	if r.results != nil {
		r.w.keepResult(r.task, r.results)
	}
	if r.records != nil {
		r.w.asynq.Note(r.task.key, asynqbatch.Notes{Record: string(r.records)})
	}
	return nil
}
