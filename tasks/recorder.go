package tasks

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redact"
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

// recorder makes the records of what a worker has done.
type recorder struct {
	keeper  *history.Keeper // nil: nothing is kept
	records records
	note    func(key string, record []byte) // asynqbatch.Client.Note
}

// accepted is the record of a message that the relay has accepted. Recipients whom it has refused have records of their own, as
// tasks of their own; of one that fails silently they have none, and so they are in a second record here.
func (r recorder) accepted(d *delivery) string {
	if r.keeper == nil {
		return ""
	}
	result := d.outcome.result
	record := history.Record{
		State: history.Sent, ID: d.noted.id, MessageID: d.message.MessageID, Mailing: d.mailing, Tags: d.noted.tags,
		Due: d.attempt.Due, At: d.attempt.Now, Tries: d.attempt.Retried + 1, Reply: redact.Reason(result.Reply, false),
		Member: d.outcome.member(d.noted.mailer),
	}
	to := history.Recipients(d.message)
	if len(result.Refused) == 0 {
		return string(record.Append(make([]byte, 0, usualRecord), to, r.keeper.Secret()))
	}
	var refused []string
	var reasons []string
	for _, e := range result.Refused {
		refused, reasons = append(refused, e.Recipient), append(reasons, e.Error())
	}
	to = slices.DeleteFunc(to, func(addr string) bool { return slices.Contains(refused, addr) })
	data := record.Append(nil, to, r.keeper.Secret())
	if d.attempt.FailSilently {
		record.ID += "-refused" // as if there were a dead letter
		record.State, record.Reply = history.Silent, redact.Reason(strings.Join(reasons, "; "), false)
		data = record.Append(data, refused, r.keeper.Secret())
	}
	return string(data)
}

// usualRecord is more bytes than most records have.
const usualRecord = 320

// ended is the record of a message that has ended with an outcome, nil if it has not, or has one.
func (r recorder) ended(t *taskMessage, o outcome) []byte {
	state := history.Sent
	switch action := o.action(); {
	case r.keeper == nil:
		return nil
	case action == ActionSkipped:
		state = history.Skipped
	case action == ActionSilent:
		state = history.Silent
	case action == ActionDead:
		state = history.Dead
	case action != ActionSentBefore:
		return nil // accepted has made it, or who cancelled it; or it has not ended
	}
	record := history.Record{State: state, ID: t.id, At: time.Now(), Tries: t.retried + 1, Reply: o.result.Reply, Member: o.member(t.name.Mailer)}
	record.Due = record.At
	if o.verdict.Reason != nil {
		record.Reply = o.verdict.Reason.Error()
	}
	record.Reply = redact.Reason(record.Reply, false)
	var to []string
	if p := t.payload; p != nil {
		record.MessageID, record.Mailing, record.Tags, record.Due = p.Message.MessageID, p.Mailing, p.Tags, p.DueAt
		to = history.Recipients(t.message())
		if record.Tries = t.tries() + 1; o.result.Err == nil && state == history.Dead {
			record.Tries = t.tries() // it was not on the wire
		}
	}
	return record.Append(nil, to, r.keeper.Secret())
}

// record gives the history what it lacks of a message that has ended, when its task is about to end.
func (r recorder) record(ctx context.Context, t *taskMessage, o outcome) {
	switch data := r.ended(t, o); {
	case data != nil && o.again:
		r.recordNow(ctx, t, data, "")
	case data != nil:
		r.note(t.key, data)
	case o.late != "":
		r.note(t.key, []byte(o.late))
	}
}

// recordNow gives the history a record before the task ends. With always it has none of the message.
func (r recorder) recordNow(ctx context.Context, t *taskMessage, data []byte, always string) {
	r.records.Do(ctx, []asynqbatch.Step{{Name: stepRecord, Key: t.key, Args: []string{t.suffix, always}, Record: string(data)}})
}
