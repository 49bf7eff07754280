package tasks

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// The history has one record of each message, from when its way has ended. The script writes it that ends the way:
//
//	the relay has accepted it                  the one that ends its task. Those of a bulk task go together, with its end,
//	                                           after a second, or when it goes back (bulkRun)
//	skipped, failed silently, dead letter      the one with which asynq ends its task (asynqbatch.Client.Note)
//	sent, but Redis could not be told in time  the step record, when its task comes back
//	cancelled, replayed, deleted; dead         a command of its own, right after: that happens seldom
//	  letters of the sweep
//
// What moves on to another queue or task has not ended.
//
// Events are written by the script that makes true what they tell, so that there is one for each recipient, and no second one:
//
//	queued                     the one that puts the task there (producer), or that replays a dead letter
//	sent                       the one that writes the ledger's entry or ends the task, also of a message of a bulk task
//	delayed                    the one with which asynq tries its task again, or with which a message leaves its bulk task; for recipients
//	                           that are put off alone the one of sent
//	failed                     the one that makes a dead letter, of a worker or the sweep; if it fails silently, the one that ends it
//	cancelled                  the one that takes it back

// recorder makes the records of what a worker has done, and the events of it.
type recorder struct {
	keeper  *history.Keeper // nil: nothing is kept
	events  events.Config
	records records
	note    func(key string, notes asynqbatch.Notes) // asynqbatch.Client.Note
}

// accepted is the record of a message that the relay has accepted, and its events. Recipients whom it has refused have records of their own, as
// tasks of their own; of one that fails silently they have none, and so they are in a second record here.
func (r recorder) accepted(d *delivery) (notes asynqbatch.Notes) {
	if r.keeper == nil && !r.events.On() {
		return notes
	}
	result, to := d.outcome.result, history.Recipients(d.message)
	if r.events.On() {
		m := events.Message{
			ID: d.noted.id, MessageID: d.message.MessageID, Mailer: d.noted.mailer, Mailing: d.mailing, Tags: d.noted.tags,
			Due: d.attempt.Due, Tries: d.attempt.Retried + 1,
		}
		notes.Events = string(acceptedEvents(m, to, result, d.attempt.FailSilently))
	}
	if r.keeper == nil {
		return notes
	}
	record := history.Record{
		State: history.Sent, ID: d.noted.id, MessageID: d.message.MessageID, Mailing: d.mailing, Tags: d.noted.tags,
		Due: d.attempt.Due, At: d.attempt.Now, Tries: d.attempt.Retried + 1, Reply: redact.Reason(result.Reply, false),
		Member: d.outcome.member(d.noted.mailer),
	}
	if len(result.Refused) == 0 {
		notes.Record = string(record.Append(make([]byte, 0, usualRecord), to, r.keeper.Secret()))
		return notes
	}
	var refused []string
	var reasons []string
	for _, e := range result.Refused {
		refused, reasons = append(refused, e.Recipient), append(reasons, e.Error())
	}
	data := record.Append(nil, without(to, result.Refused), r.keeper.Secret())
	if d.attempt.FailSilently {
		record.ID += "-refused" // as if there were a dead letter
		record.State, record.Reply = history.Silent, redact.Reason(strings.Join(reasons, "; "), false)
		data = record.Append(data, refused, r.keeper.Secret())
	}
	notes.Record = string(data)
	return notes
}

// usualRecord is more bytes than most records have.
const usualRecord = 320

// without are the recipients but for those who were refused.
func without(to []string, refused []*mailer.SendError) []string {
	return slices.DeleteFunc(slices.Clone(to), func(addr string) bool {
		return slices.ContainsFunc(refused, func(e *mailer.SendError) bool { return e.Recipient == addr })
	})
}

// acceptedEvents are the events of a message that the relay has accepted, maybe not for all of its recipients. Those who are refused for good get theirs with
// their dead letter.
func acceptedEvents(m events.Message, to []string, result mailer.Result, failSilently bool) []byte {
	if len(result.Refused) > 0 {
		to = without(to, result.Refused)
	}
	var data []byte
	if len(to) > 0 {
		data = events.Append(nil, events.Sent, m, eventReply(result.Reply), to...)
	}
	put, list := events.Delayed, result.Refused
	if failSilently {
		put = events.Failed
	} else {
		list, _ = deliverypolicy.Remainders(result.Refused, false)
	}
	for _, e := range list {
		data = events.Append(data, put, m, eventReply(e.Error()), e.Recipient)
	}
	return data
}

// eventReply is a text as the reply of an event: with addresses, for who gets events gets those of the recipients anyway.
func eventReply(text string) string { return redact.Text(text, mostEventReply, true) }

const mostEventReply = 500 // characters

// failedEvents are events of a message that has failed for all of these recipients. What was said of one of them is that one's reply.
func failedEvents(t events.Type, m events.Message, to []string, reason error) []byte {
	if reason == nil {
		reason = errors.New("")
	}
	text, own := eventReply(reason.Error()), map[string]string{}
	if e := (*mailer.SendError)(nil); errors.As(reason, &e) && len(e.Refused) > 1 {
		for _, one := range e.Refused {
			own[one.Recipient] = eventReply(one.Error())
		}
	}
	if len(own) == 0 || len(to) == 0 {
		return events.Append(nil, t, m, text, to...)
	}
	var data []byte
	for _, addr := range to {
		data = events.Append(data, t, m, cmp.Or(own[addr], text), addr)
	}
	return data
}

// ended is the record of a message that has ended with an outcome, and its events, if it has none of them yet. One that is to be tried again has
// events.
func (r recorder) ended(t *taskMessage, o outcome) (notes asynqbatch.Notes) {
	var state history.State
	var told events.Type
	switch o.action() {
	case ActionSentBefore:
		state, told = history.Sent, events.Sent
	case ActionSkipped:
		state = history.Skipped
	case ActionSilent:
		state, told = history.Silent, events.Failed
	case ActionDead:
		state, told = history.Dead, events.Failed
	case ActionRetry:
		told = events.Delayed
	case ActionSent, ActionCancelled, ActionForwarded: // accepted has made it, or who cancelled it; or it has not ended
		return notes
	}
	record := history.Record{State: state, ID: t.id, At: time.Now(), Tries: t.retried + 1, Reply: o.result.Reply, Member: o.member(t.name.Mailer)}
	record.Due = record.At
	if o.verdict.Reason != nil {
		record.Reply = o.verdict.Reason.Error()
	}
	record.Reply = redact.Reason(record.Reply, false)
	var to []string
	m := events.Message{ID: t.id}
	if p := t.payload; p != nil {
		record.MessageID, record.Mailing, record.Tags, record.Due = p.Message.MessageID, p.Mailing, p.Tags, p.DueAt
		to = history.Recipients(t.message())
		if record.Tries = t.tries() + 1; o.result.Err == nil && state == history.Dead {
			record.Tries = t.tries() // it was not on the wire
		}
		m = events.Of(p, t.id, 0)
	}
	if !o.at.IsZero() {
		record.At, record.Tries = o.at, o.retried+1
	}
	if r.keeper != nil && state != 0 {
		notes.Record = string(record.Append(nil, to, r.keeper.Secret()))
	}
	m.Tries = record.Tries
	switch {
	case !r.events.On() || told == "":
	case told == events.Sent:
		notes.Events = string(acceptedEvents(m, to, o.result, t.payload != nil && t.payload.Message.FailSilently))
	default:
		notes.Events = string(failedEvents(told, m, to, o.verdict.Reason))
	}
	return notes
}

// record has written what there is to write of a message that has ended, or is to be tried again, when its task is about to.
func (r recorder) record(ctx context.Context, t *taskMessage, o outcome) {
	switch notes, none := r.ended(t, o), (asynqbatch.Notes{}); {
	case notes != none && o.again:
		r.recordNow(ctx, t, notes, recordMissing)
	case notes != none:
		r.note(t.key, notes)
	case o.late != none:
		r.note(t.key, o.late)
	}
}

// recordNow writes notes before the task ends, in the case that is given.
func (r recorder) recordNow(ctx context.Context, t *taskMessage, notes asynqbatch.Notes, when string) {
	r.records.Do(ctx, []asynqbatch.Step{recordStep(t, notes, when)})
}

func recordStep(t *taskMessage, notes asynqbatch.Notes, when string) asynqbatch.Step {
	return asynqbatch.Step{Name: stepRecord, Key: t.key, Args: []string{t.suffix, when}, Notes: notes}
}

// archivedEvents are the events of a task that asynq archives by itself: its messages are dead letters.
func archivedEvents(id string, task asynqbatch.Message) []byte {
	return events.OfTask(task.Type, id, task.Payload, task.Retried, events.Failed, eventReply(task.LastError))
}
