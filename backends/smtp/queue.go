package smtp

import (
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// A queue is a batch on its way. It renders each message shortly before it is its
// turn, and reports each one's result once.
type queue struct {
	batch    mailer.Batch
	defaults mailer.Defaults
	settled  func(j *job, r mailer.Result) // for hooks; nil if nobody listens

	next  int             // the first message not looked at
	ready []*job          // to be sent before it
	free  []*job          // to be used again
	known []mailer.Report // to be reported
}

// peek returns the next job without taking it, or nil if there is none.
// Messages that cannot be sent to anybody are reported on the way.
func (q *queue) peek() *job {
	for len(q.ready) == 0 && q.next < len(q.batch.Messages) {
		q.prepare(q.next)
		q.next++
	}
	if len(q.ready) == 0 {
		return nil
	}
	return q.ready[0]
}

func (q *queue) prepare(i int) {
	j := q.job()
	err := j.load(i, q.batch.Messages[i].WithDefaults(q.defaults))
	switch {
	case err != nil:
		q.note(i, mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}})
	case len(j.to) == 0:
		q.note(i, mailer.Result{Skipped: true})
	default:
		q.ready = append(q.ready, j)
		return
	}
	q.recycle(j)
}

// take takes the job that peek returned.
func (q *queue) take() *job {
	j := q.peek()
	if j != nil {
		q.ready = slices.Delete(q.ready, 0, 1)
	}
	return j
}

// putBack makes jobs the next ones.
func (q *queue) putBack(jobs ...*job) { q.ready = slices.Insert(q.ready, 0, jobs...) }

// note keeps a result for the next report.
func (q *queue) note(i int, r mailer.Result) {
	q.known = append(q.known, mailer.Report{Index: i, Result: r})
}

// tell reports what is known by now, if there is anything.
func (q *queue) tell() bool {
	if len(q.known) == 0 {
		return false
	}
	q.batch.Report(q.known)
	q.known = q.known[:0]
	return true
}

// admit asks whether the job that take returned may be sent now, and reports it if not. A
// message that was accepted for some recipients goes on to the others without asking: its
// sender has been told yes, and part of it is delivered.
func (q *queue) admit(j *job) bool {
	if q.batch.Begin == nil || j.reply != "" {
		return true
	}
	err := q.batch.Begin(j.index)
	if err != nil {
		q.end(j, mailer.Result{Err: err, Connection: j.connection()})
	}
	return err == nil
}

// finish ends a job whose transactions are over.
func (q *queue) finish(j *job) { q.end(j, j.result()) }

// end ends a job that has its result. Hooks are told if it was given to a connection.
func (q *queue) end(j *job, r mailer.Result) {
	if q.settled != nil && j.conn != nil {
		q.settled(j, r)
	}
	q.note(j.index, r)
	q.recycle(j)
}

// failAll reports all that is left as failed, each with a copy of err.
func (q *queue) failAll(err *mailer.SendError) {
	for j := q.take(); j != nil; j = q.take() {
		failure := *err
		j.begin(j.conn) // it may have been given to one that broke
		j.err = &failure
		q.finish(j)
	}
}

func (q *queue) job() *job {
	if n := len(q.free); n > 0 {
		j := q.free[n-1]
		q.free = q.free[:n-1]
		return j
	}
	return &job{}
}

func (q *queue) recycle(j *job) {
	if cap(j.body) > bigBody {
		j.body = nil // it may be on its way yet, if the server has answered too early
	}
	q.free = append(q.free, j)
}
