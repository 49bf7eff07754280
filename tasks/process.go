package tasks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// ProcessTask is asynq's handler: it hands a task's message, or messages, to the senders
// and waits for their outcome. asynq stores the text of the error, and its tools show that to
// whoever can reach them: so no address is in it, and of a panic only what Go says itself.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			what := "tasks: the worker panicked: " + redact.Panic(p)
			w.log.Error().Bytes("stack", debug.Stack()).Msg(what)
			err = errors.New(what)
		}
		if err != nil {
			err = &storedError{err}
		}
	}()
	return w.process(ctx, task)
}

func (w *Worker) process(ctx context.Context, task *asynq.Task) (err error) {
	t := newTaskMessage(ctx, task)
	release, ok := w.inFlight.Take(ctx, t.key)
	if !ok {
		return errGivenBack
	}
	defer release()
	if why, what := foreign(task); why != "" {
		return w.strangers.putOff(ctx, t, why, what)
	}
	defer func() {
		lost := errors.Is(ctx.Err(), context.Canceled) && w.isolation.Stopping().Err() == nil
		if lost || errors.Is(err, errNotOurs) {
			w.isolation.Forgive(ctx, t.key) // its lease was lost
		}
	}()
	via := w.dispatchers[t.name.Mailer]
	t.handed = via.handed.begin(t.key, t.queue)
	defer t.handed.end()
	if need := weight.ToRead(t.task.Payload(), t.name.Bulk); need > 0 {
		inTime, cancel := w.inTime(ctx, t, t.started.Add(w.cfg.TaskTimeout))
		err = via.roomToRead(inTime, t, need)
		cancel()
	}
	if err == nil {
		err = w.processIn(ctx, t, via)
	}
	t.read.Release()
	switch {
	case ctx.Err() != nil, errors.Is(err, errNotOurs): // the task is not ours any more
	case errors.Is(err, errGivenBack):
		return w.goBack(ctx, t, err)
	default:
		w.rounds.forget(t.key)
	}
	return err
}

// goBack gives a task back to its queue: at once to where it was, unless it has come back before.
func (w *Worker) goBack(ctx context.Context, t *taskMessage, err error) error {
	why := backReason(err)
	w.observers.back(GivenBack{Reason: why, TaskID: t.id, Queue: t.name.Queue, Mailer: t.name.Mailer})
	if late := new(givenBackError); errors.As(err, &late) && late.later && w.asynq.PutLater(ctx, t.key, late.delay) == nil {
		return err // asynq is not heard then
	}
	if pause := w.rounds.again(t.key, t.name, why, t.progress, time.Now()); pause > 0 {
		return &givenBackError{why: why, delay: pause}
	}
	t.handed.goBack()
	return err
}

func (w *Worker) processIn(ctx context.Context, t *taskMessage, via *dispatcher) error {
	if lost := w.isolation.Lost(t.key); lost > 0 {
		return w.processAlone(ctx, t, via, lost)
	}
	leave, ok := w.isolation.EnterNow()
	if !ok {
		entering, cancel := via.untilBack(ctx, t)
		leave, ok = w.isolation.Enter(entering)
		cancel()
	}
	if !ok {
		return cmp.Or(via.goesBack(), givenBack(BackAlone))
	}
	defer leave()
	if t.task.Type() == wire.TaskTypeBulk {
		return w.processBulk(ctx, t)
	}
	return w.processOne(ctx, t)
}

// processAlone runs a task that has lost so many leases with nothing else in the process.
// Its relay must take mail, for otherwise it would wait, and all others with it.
func (w *Worker) processAlone(ctx context.Context, t *taskMessage, via *dispatcher, lost int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.isolation.Stopping(), cancel)()
	t.stays()
	if via.holds() {
		return givenBack(BackHeld)
	}
	leave, ok := w.isolation.EnterAlone(ctx)
	if !ok {
		return givenBack(BackAlone)
	}
	defer leave()
	if via.holds() {
		return givenBack(BackHeld)
	}
	w.log.Warn().Str("task", t.id).Str("queue", t.queue).Int("lost_leases", lost).
		Msg("workers that had this task died, or were cut off: it runs with nothing else in the process")
	t.alone = true
	if t.task.Type() == wire.TaskTypeBulk {
		return w.processBulkAlone(ctx, t, lost)
	}
	died, err := w.runAlone(ctx, t, func() error { return w.processOne(ctx, t) })
	if died > 0 {
		return w.condemn(ctx, t, lost)
	}
	return err
}

// runAlone runs a message alone, unless workers have died in too many such runs: then it returns in how many.
func (w *Worker) runAlone(ctx context.Context, t *taskMessage, do func() error) (died int, err error) {
	died, begun := w.isolation.Run(ctx, t.key, t.suffix, func() (proven bool) {
		err = do()
		return !errors.Is(err, errGivenBack) && t.suffix == ""
	})
	switch {
	case errors.Is(begun, isolation.ErrNotOurs):
		return 0, errNotOurs
	case begun != nil:
		return 0, errGivenBack
	}
	return died, err
}

// condemn makes a dead letter of a message that has not been read: that alone might kill
// the process. What its record has of that is forgotten: a person who runs it again
// gives it all its runs again. One that was sent after all, or cancelled, ends so.
func (w *Worker) condemn(ctx context.Context, t *taskMessage, lost int) error {
	o, err := w.ledger.decided(ctx, t, dead(diedOf(lost)))
	if err != nil {
		return err
	}
	if o.verdict.Action != deadLetter {
		return w.processOne(ctx, t)
	}
	if o, err = w.settle(ctx, t, o); err != nil {
		return err
	}
	if err := w.redis.HDel(ctx, t.key, wire.FieldAlone, wire.FieldLost).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	w.recorder.record(ctx, t, o)
	w.ended(t, o)
	return taskError(o.verdict)
}

// diedOf is why a message is a dead letter whose workers died.
func diedOf(times int) error {
	return fmt.Errorf("its worker died %d times, the last %d with nothing else to do: "+
		"look at what it is before it is sent again, and at the memory that a worker may have", times, isolation.FatalRuns)
}

// processBulkAlone runs a bulk task message by message.
func (w *Worker) processBulkAlone(ctx context.Context, t *taskMessage, lost int) (err error) {
	lines := slices.Collect(wire.Lines(t.task.Payload()))
	r := &bulkRun{w: w, task: t, messages: make([]*taskMessage, len(lines))}
	defer func() { r.unended(ctx, err) }()
	defer r.endSpans()
	for i := range lines {
		r.messages[i] = t.part(i)
	}
	for i, m := range r.messages {
		died, err := w.runAlone(ctx, m, func() error { return r.only(ctx, m, lines[i]) })
		if died > 0 {
			err = r.condemn(ctx, m, lines[i], lost)
		}
		if err != nil {
			return err
		}
	}
	return r.end(ctx)
}

// only sends one message of the task.
func (r *bulkRun) only(ctx context.Context, m *taskMessage, line []byte) error {
	p, err := wire.Decode(line, r.task.task.Headers())
	if m.payload = p; err != nil {
		return r.settle(ctx, m, dead(err))
	}
	via, ok := r.w.dispatchers[p.Using]
	if !ok {
		return r.settle(ctx, m, dead(unknownHere(p.Using)))
	}
	if o, settled := r.unsendable(m, via, nil); settled {
		return r.settle(ctx, m, o)
	}
	return r.sendAll(ctx, via, []*taskMessage{m})
}

// condemn makes a task of a message that has killed its workers. It becomes a dead letter,
// unread.
func (r *bulkRun) condemn(ctx context.Context, m *taskMessage, line []byte, lost int) error {
	task := asynq.NewTaskWithHeaders(wire.TaskType, bytes.TrimSpace(line), map[string]string{wire.HeaderDied: diedOf(lost).Error()})
	if err := r.putAside(ctx, m, task); err != nil {
		return err
	}
	if err := r.w.ledger.note(ctx, m, wire.Record{Moved: true}); err != nil {
		return err
	}
	r.finished++
	return nil
}
