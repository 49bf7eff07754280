package tasks

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/mailer"
)

// Mass mail travels as tasks of many messages each, so that the queue's cost per message
// falls. The task is only how they travel: each message has its own place in the
// ledger, its own outcome and its own ID, <task>.<index>. One that fails for now, or for
// good, leaves the mass task and goes on as a task of its own under that ID. So a mass
// task always completes in the end, unless nothing can be sent at all.

// TaskTypeMass is the asynq type of a task that carries many messages. Its payload is
// one payload of a TaskType task for each, a line each.
const TaskTypeMass = "mailpouch:messages"

// putMass enqueues messages as one task.
func putMass(ctx context.Context, client *producer, payloads []*payload, id string, opts ...asynq.Option) error {
	var lines []byte
	for _, p := range payloads {
		p, err := client.hold(ctx, p, taskKey(queueOf(opts), id))
		if err != nil {
			return err
		}
		line, err := p.encode()
		if err != nil {
			return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
		}
		lines = append(append(lines, line...), '\n')
	}
	return putTask(ctx, client, TaskTypeMass, lines, id, opts...)
}

// handOverMass enqueues messages as one task under the given ID. That the ID is there
// already is success, as for enqueue.
func (q *Queue) handOverMass(ctx context.Context, payloads []*payload, id string) error {
	name := q.queueOf(id)
	name.Mass = true
	err := putMass(ctx, q.client, payloads, id, q.taskOptions(name.String(), payloads[0].DueAt)...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// unpack returns the messages of a mass task. The payload of one that cannot be read is
// nil, and its entry in errs says why.
func (t ticket) unpack() (tickets []ticket, errs []error) {
	for line := range bytes.Lines(t.task.Payload()) {
		m := t
		m.index = len(tickets)
		m.id = massID(t.id, m.index)
		m.slot = m.id[len(t.id):]
		p, err := decodePayload(line)
		m.payload = p
		tickets, errs = append(tickets, m), append(errs, err)
	}
	return tickets, errs
}

// massRun is one run of a mass task.
type massRun struct {
	w        *Worker
	task     ticket
	messages []ticket
	results  []resultRecord // if they are to be kept
	finished int
}

func (w *Worker) processMass(ctx context.Context, t ticket) error {
	messages, errs := t.unpack()
	r := &massRun{w: w, task: t, messages: messages}
	l, lost := r.lane()
	inTime, cancel := w.inTime(ctx)
	defer cancel()
	var jobs []*job
	done := make(chan *job, len(messages))
	for i, m := range messages {
		o, settled, err := outcome{}, true, errors.Join(errs[i], lost)
		if err != nil {
			o = dead(err)
		} else if o, settled, err = r.prepare(inTime, m, l); err != nil {
			return err
		}
		if !settled {
			jobs = append(jobs, newJob(r.messages[i], done))
		} else if err := r.settle(ctx, m, o); err != nil {
			return err
		}
	}
	if err := r.send(ctx, inTime, l, jobs, done); err != nil {
		return err
	}
	return r.end()
}

// lane is the lane of the messages, which all have the same mailer.
func (r *massRun) lane() (*lane, error) {
	for _, m := range r.messages {
		if m.payload == nil {
			continue
		}
		if l, ok := r.w.lanes[m.payload.Using]; ok {
			return l, nil
		}
		return nil, unknownHere(m.payload.Using)
	}
	return nil, nil
}

// prepare makes a message ready to be sent, or says what becomes of it without that.
func (r *massRun) prepare(ctx context.Context, m ticket, l *lane) (o outcome, settled bool, err error) {
	if o, ok := r.w.hopeless(m); ok {
		return o, true, nil
	}
	if m.name.Mailer != l.mailer { // its producer did not know the mailer
		return outcome{forwarded: true}, true, nil
	}
	err = r.w.blobs.fill(ctx, m.payload)
	if mailer.ClassOf(err) == mailer.Unavailable {
		return o, false, errGivenBack
	}
	if err != nil {
		return outcome{verdict: r.w.policy.decide(err, m.attempt())}, true, nil
	}
	return o, false, nil
}

// send gives the jobs to the senders, spread over all of them, and settles each when it
// is through. Where time runs out it waits for what is on the wire and gives the task back.
func (r *massRun) send(ctx, inTime context.Context, l *lane, jobs []*job, done <-chan *job) error {
	if len(jobs) == 0 {
		return nil
	}
	var chunks [][]*job
	for chunk := range slices.Chunk(jobs, (len(jobs)+l.connections-1)/l.connections) {
		chunks = append(chunks, chunk)
	}
	var failure error
	over := inTime.Done()
	for left := len(jobs); left > 0; {
		var next []*job
		var way chan []*job // nil: nothing to offer
		if len(chunks) > 0 {
			next, way = chunks[0], l.way(r.task.name)
		}
		select {
		case way <- next:
			chunks = chunks[1:]
		case j := <-done:
			left--
			if err := r.settle(ctx, r.messages[j.index], j.outcome); err != nil {
				failure = err
			}
		case <-over:
			over, chunks, failure = nil, nil, errGivenBack
			for _, j := range jobs {
				if j.giveUp() {
					left--
				}
			}
		}
	}
	return failure
}

// settle does what a message's outcome asks for. What is to be tried again or kept for
// a person leaves the task here.
func (r *massRun) settle(ctx context.Context, m ticket, o outcome) error {
	if o.forwarded || o.verdict.action == deadLetter && o.result.Err == nil { // it was not on the wire
		var err error
		if o, err = r.w.decided(ctx, m, o); err != nil {
			return errGivenBack
		}
	}
	if o.moved {
		r.finished++
		return nil
	}
	if err := r.moveOn(ctx, m, o); err != nil {
		r.w.log.Error().Err(err).Str("task", m.id).Msg("given back: what became of the message cannot be written down")
		return errGivenBack
	}
	r.finished++
	if m.payload != nil && m.payload.KeepResult {
		if r.results == nil {
			r.results = make([]resultRecord, len(r.messages))
		}
		r.results[m.index] = newResultRecord(o)
	}
	r.w.ended(m.ended(o))
	return nil
}

// moveOn makes tasks of what is left of a message, and notes that in the ledger, so that
// another run of the mass task does not do it again.
func (r *massRun) moveOn(ctx context.Context, m ticket, o outcome) error {
	mark := record{Moved: true}
	var err error
	switch {
	case m.payload == nil:
		err = r.keepUnreadable(ctx, m)
	case o.verdict.action == retry:
		p := *m.payload
		p.Spent++
		err = r.w.enqueueRest(ctx, m, &p, "", asynq.ProcessIn(o.verdict.delay))
	case o.verdict.action == deadLetter:
		p := *m.payload
		p.Spent, p.Refused = p.Spent+1, o.verdict.reason.Error()
		err = r.w.enqueueRest(ctx, m, &p, "")
	case o.forwarded:
		m.name.Mailer = m.payload.Using
		err = r.w.enqueueRest(ctx, m, m.payload, "")
	case len(o.result.Refused) > 0:
		mark = record{Reply: o.result.Reply}
		err = r.w.keepRefused(ctx, m, o.result.Refused)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return r.w.ledger.note(ctx, m, mark)
}

// keepUnreadable makes a task of a message that cannot be read. It becomes a dead letter
// when a worker finds that out again, with its payload as it is.
func (r *massRun) keepUnreadable(ctx context.Context, m ticket) error {
	name := m.name
	name.Mass = false
	line := slices.Collect(bytes.Lines(m.task.Payload()))[m.index]
	err := putTask(ctx, r.w.client, TaskType, bytes.TrimSpace(line), m.id,
		asynq.Queue(name.String()), asynq.MaxRetry(m.maxRetry+spareRetry))
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// end is the end of the run: the task completes if every message is through.
func (r *massRun) end() error {
	if r.finished < len(r.messages) {
		return errGivenBack
	}
	for _, m := range r.messages {
		r.w.blobs.done(m)
	}
	if r.results != nil {
		r.w.keepResult(r.task, r.results)
	}
	return nil
}
