package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/recent"
)

// ledger remembers which messages the relay has accepted, from the relay's reply to
// the end of the task. A task that comes back in between (its worker died, Redis was
// away, its lease ran out) is completed without being sent again.
//
// An entry is a field of asynq's own record of the task, so it lives exactly as long
// as the task does, in Redis and on its replicas, and costs nothing afterwards. It
// is written before the task may end, in one round trip for all that the relay has
// accepted meanwhile. What could not be written is kept in memory, where this worker
// looks first, and written when Redis is back.
//
//	unsent    which of a batch may be sent? mark the first       Redis: ours? sent? begun? cancelled?
//	          ... MAIL, RCPT, DATA ...
//	commit    may it be accepted now?                            marked, and surely ours: else Redis again
//	          ... the body, the reply: 250 ...
//	finish    remember it, then end its task or write an entry,  memory, then Redis
//	          and mark the next one, in one step if both are of one bulk task
//	          ... the handler returns, asynq ends the task and the entry with it
//
// A mark says that a message may have been delivered. It belongs to one that is about to be written, and rides in
// the round trip that records the one before.
type ledger struct {
	redis   redis.UniversalClient
	records records
	history recorder
	log     zerolog.Logger

	mu      sync.Mutex
	wake    chan struct{} // holds a token when Redis is to be written to again, or when it is to end
	ending  bool
	recent  *recent.Texts // what this worker has sent last: records by the names of deliveries
	missing bool          // Redis may lack some of recent

	unwritten unwritten
}

// remember is how many messages a worker remembers by itself, at least: the last seconds at full
// speed. While Redis is away nothing more is sent, so what it may have missed or, after
// a failover, forgotten is among them.
const remember = 50_000

// restorePause is how long after a failure Redis is written to again. Another worker may be given
// the task as soon as Redis is back.
const restorePause = 100 * time.Millisecond

func newLedger(client redis.UniversalClient, r records, log zerolog.Logger) *ledger {
	return &ledger{redis: client, records: r, log: log, wake: make(chan struct{}, 1), recent: recent.New(remember)}
}

// errBegun is what became of an at_most_once message whose earlier try has no known end.
var errBegun = errors.New("an earlier try was cut off: the message may have been delivered (at_most_once)")

// unsent returns the deliveries that may be sent, and settles the others: those that were
// accepted before, at_most_once ones that may have been, cancelled ones, and those of tasks that are another
// worker's by now. It asks Redis once for all of them, but for those that were fetched just now with nothing to say of them, and marks
// the first ones, so many as are marked: no message is written that no mark has asked for. If Redis does not answer, nothing may be sent.
func (l *ledger) unsent(ctx context.Context, deliveries []*delivery, marked int) ([]*delivery, error) {
	left := slices.DeleteFunc(slices.Clone(deliveries), l.sentHere)
	marked = min(marked, len(left))
	wanted := make([]asynqbatch.Step, 0, len(left))
	for _, d := range left[:marked] {
		wanted = append(wanted, d.step(stepMark))
	}
	var together [][]*delivery
	for run := range runs(left[marked:]) {
		if run[0].suffix == "" && l.records.Fresh(run[0].key) {
			continue // the fetch has just said that there is nothing; its mark asks again
		}
		together = append(together, run)
		wanted = append(wanted, askAll(run))
	}
	answers := l.records.Do(ctx, wanted)
	err := l.judgeAll(left[:marked], answers[:marked], true)
	var more []*delivery // of which there is something to say
	for i, a := range answers[marked:] {
		if a.Err != nil {
			err = a.Err
		} else if a.Text != "" {
			more = append(more, together[i]...)
		}
	}
	if err == nil {
		err = l.judgeAll(more, l.records.Do(ctx, stepsOf(stepLook, more)), false)
	}
	if err != nil {
		l.missed()
		return nil, redisconn.Unavailable(err)
	}
	return slices.DeleteFunc(left, func(d *delivery) bool { return d.over }), nil
}

// judgeAll notes what Redis says of deliveries. It returns the error of one of which it says nothing.
func (l *ledger) judgeAll(deliveries []*delivery, answers []asynqbatch.Answer, marked bool) (err error) {
	for i, d := range deliveries {
		if a := answers[i]; a.Err != nil {
			err = a.Err
		} else {
			l.judge(d, a.Text, marked)
		}
	}
	return err
}

// mark marks messages that are about to be written, and settles those that may not be.
func (l *ledger) mark(ctx context.Context, deliveries []*delivery) error {
	if err := l.judgeAll(deliveries, l.records.Do(ctx, stepsOf(stepMark, deliveries)), true); err != nil {
		l.missed()
		return redisconn.Unavailable(err)
	}
	return nil
}

// committed reports whether the message of a delivery is marked, and its task surely this worker's for a while yet.
func (l *ledger) committed(d *delivery) bool {
	return d.marked && l.records.Sure(d.key)
}

// judge notes what Redis says of a delivery. A task that is not there has ended elsewhere, unless it was surely ours all
// the time: then Redis has forgotten it.
func (l *ledger) judge(d *delivery, said string, marked bool) {
	switch d.gone = said == sayGone; {
	case said == "", d.gone && l.records.Sure(d.key):
		d.marked = d.marked || marked
	default:
		l.settle(d, said)
	}
}

// sentHere settles a delivery whose message this worker remembers as sent.
func (l *ledger) sentHere(d *delivery) bool {
	record, ok := l.remembered(d.name())
	if ok {
		l.settle(d, saySent+record)
	}
	return ok
}

// settle ends a delivery whose message must not be sent any more.
func (l *ledger) settle(d *delivery, said string) {
	o := outcome{lost: true}
	if record, sent := strings.CutPrefix(said, saySent); sent {
		var err error
		if o, err = outcomeOf(record); err != nil {
			l.log.Error().Err(err).Msg("ledger entry that cannot be read: the message counts as sent")
		}
	}
	if what, paused := strings.CutPrefix(said, sayPaused); paused {
		o = outcome{paused: what}
		d.marked = false
	}
	switch said {
	case sayCancelled:
		o = outcome{verdict: verdict{Action: drop}}
	case sayBegun:
		o = outcome{verdict: verdict{Action: deadLetter, Reason: errBegun}}
	}
	d.over = true
	d.end(o)
}

// released takes back that tries may have delivered their messages: the relay took nothing.
func (l *ledger) released(deliveries []*delivery) {
	var wanted []asynqbatch.Step
	for _, d := range deliveries {
		if !d.marked {
			continue
		}
		if d.onceToken != "" {
			l.unwritten.add(d)
			defer l.unwritten.written(d)
		}
		d.marked = false
		wanted = append(wanted, d.step(stepRelease))
	}
	for _, a := range l.records.Do(context.Background(), wanted) { // the batch's time may be up
		if a.Err != nil {
			l.missed() // if this worker ends now, another one takes these for doubtful
			return
		}
	}
}

func (l *ledger) remembered(key string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent.Get(key)
}

// finish writes outcomes down, where that is called for, gives them to the handlers, and marks the next messages, all
// in one round trip. It returns when that is done: a sender goes on to its next message when Redis knows of the last one,
// so that only what it had on the wire is sent twice if the worker is killed. It is false if Redis could not be written to.
// noted is called before, when what the relay has accepted is unwritten.
func (l *ledger) finish(deliveries, next []*delivery, noted func()) bool {
	wanted := make([]asynqbatch.Step, 0, len(deliveries)+len(next))
	about := make([]asked, 0, cap(wanted))
	for _, d := range deliveries {
		name, ok := l.stepOf(d)
		if !ok {
			d.end(d.outcome)
			continue
		}
		if name == stepRelease && d.onceToken != "" {
			l.unwritten.add(d)
		}
		if name == stepAccepted && len(next) > 0 {
			if s, ok := d.stepWith(next[0]); ok {
				wanted, about = append(wanted, s), append(about, asked{d, next[0]})
				next = next[1:]
				continue
			}
		}
		wanted, about = append(wanted, d.step(name)), append(about, asked{told: d})
	}
	noted()
	for _, d := range next {
		wanted, about = append(wanted, d.step(stepMark)), append(about, asked{next: d})
	}
	known := true
	var again []*delivery
	for i, a := range l.records.Do(context.Background(), wanted) { // a batch whose time is up is written down too
		told, next, name := about[i].told, about[i].next, wanted[i].Name
		switch {
		case told == nil:
		case a.Err != nil && (name == stepAccepted || name == stepNext):
			again = append(again, told)
		default:
			l.unwritten.written(told)
			known = l.finished(told, name, a) && known
		}
		switch {
		case next == nil:
		case a.Err != nil:
			known = false
		default:
			l.judge(next, a.Text, true)
		}
	}
	return l.write(again) && known
}

// asked is what a step is about: a delivery that has an outcome, one that is to be marked, or both.
type asked struct{ told, next *delivery }

// stepOf is what is to be done to the record for the outcome of a delivery, if anything is.
func (l *ledger) stepOf(d *delivery) (name string, ok bool) {
	switch r, v := d.outcome.result, d.outcome.verdict; {
	case r.Err == nil && v.Action == complete && !r.Skipped:
		l.accepted(d)
		return stepAccepted, true
	case d.marked && !r.Skipped && d.releases() != (mark{}):
		return stepRelease, true
	case !d.marked && d.suffix == "" && (v.Action == deadLetter || v.Action == complete && r.Err != nil):
		return stepDecide, true // it can have been cancelled until now
	}
	return "", false
}

// finished ends a delivery whose step was done, or failed.
func (l *ledger) finished(d *delivery, name string, a asynqbatch.Answer) (known bool) {
	switch {
	case a.Err != nil:
		l.missed()
		if name == stepDecide {
			d.outcome = outcome{verdict: verdict{Action: hold}}
		}
	case name == stepDecide && a.Text != "" && (a.Text != sayGone || !l.records.Sure(d.key)):
		l.settle(d, a.Text)
		return true
	}
	d.end(d.outcome)
	return a.Err == nil
}

// accepted notes that the relay has accepted a message.
func (l *ledger) accepted(d *delivery) {
	d.outcome.at, d.outcome.retried = d.attempt.Now, d.attempt.Retried
	data, err := d.outcome.entry().Encode()
	if err != nil {
		data = "{}"
	}
	d.record, d.notes = data, l.history.accepted(d)
	if d.suffix != "" {
		d.outcome.late.Record = d.notes.Record // it goes with those of the others of the task
	}
	l.unwritten.add(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent.Put(d.name(), data)
}

// failed notes that Redis could not be written to.
func (l *ledger) failed(err error, messages int) {
	l.log.Error().Err(redisconn.Unavailable(err)).Int("messages", messages).
		Msg("tried, but Redis could not be told: what was sent is remembered here until it can")
	l.missed()
}

func (l *ledger) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run writes to Redis again what it may have missed, until end is called and Redis knows what the relay has
// accepted, or until work is over too.
func (l *ledger) run(work context.Context) {
	for range l.wake {
		l.restore(context.WithoutCancel(work)) // at the end too: nobody else knows of it
		l.mu.Lock()
		ending := l.ending
		l.mu.Unlock()
		if ending && (!l.unwritten.any() || work.Err() != nil) {
			return
		}
	}
}

// end makes run return once Redis knows, or the time is up. Nothing may be finished after it.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	l.signal()
}

// write writes the entries of accepted messages without ending their tasks, after that has failed, and gives
// them to their handlers also if Redis is away, for they are remembered here.
func (l *ledger) write(deliveries []*delivery) (known bool) {
	if len(deliveries) == 0 {
		return true
	}
	ctx := context.Background()
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, d := range deliveries {
			p.Eval(ctx, restoreScript, []string{d.key}, wire.FieldSent+d.suffix, d.record, d.generation, wire.FieldWire+d.suffix, wire.FieldUnrecorded+d.suffix)
		}
		return nil
	})
	if err == nil {
		l.unwritten.written(deliveries...)
	}
	for _, d := range deliveries {
		d.outcome.late, d.outcome.late.Late = d.notes, true
		d.end(d.outcome)
	}
	if err != nil {
		l.failed(err, len(deliveries))
		return false
	}
	l.restore(ctx)
	return true
}

// missed notes that Redis may not have what was written: it was away, and what answers
// again may be a replica that is behind. run soon writes it again.
func (l *ledger) missed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.missing {
		l.missing = true
		time.AfterFunc(restorePause, l.signal)
	}
}

// restoreScript adds an entry to a task that is still there: the one with the generation
// ARGV[3] in its wire mark ARGV[4], if that is not empty. With the field ARGV[5] it notes that the history has no record of it.
const restoreScript = `
if redis.call("HEXISTS", KEYS[1], "state") == 0 then return 0 end
local wire = redis.call("HGET", KEYS[1], ARGV[4]) or ""
if string.sub(wire, 1, #ARGV[3]) == ARGV[3] and redis.call("HSETNX", KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call("HSET", KEYS[1], ARGV[5], "1")
end
return 0`

// restore writes all that this worker remembers again, after Redis was away.
func (l *ledger) restore(ctx context.Context) {
	l.mu.Lock()
	if !l.missing {
		l.mu.Unlock()
		return
	}
	entries := l.recent.All()
	l.missing = false // before it is written: what Redis misses from now on is written the next time
	l.mu.Unlock()
	some := make(map[string]string, restoredAtOnce)
	for name, data := range entries {
		if some[name] = data; len(some) == restoredAtOnce {
			if !l.restoreSome(ctx, some) {
				return
			}
			clear(some)
		}
	}
	l.restoreSome(ctx, some)
}

// restoredAtOnce is how many entries are written again in one round trip.
const restoredAtOnce = 1000

func (l *ledger) restoreSome(ctx context.Context, entries map[string]string) bool {
	if len(entries) == 0 {
		return true
	}
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for name, data := range entries {
			key, after, _ := strings.Cut(name, "\x00")
			generation, suffix, _ := strings.Cut(after, "\x00")
			p.Eval(ctx, restoreScript, []string{key}, wire.FieldSent+suffix, data, generation, wire.FieldWire+suffix, wire.FieldUnrecorded+suffix)
		}
		return nil
	})
	if err != nil {
		l.missed()
		return false
	}
	l.unwritten.restored(entries)
	return true
}

// noteScript writes an entry of a task that is there. noteEventsScript writes events with it, ARGV[3], of which ARGV[4] bytes are kept, if there
// is no such entry.
const noteScript = `
if redis.call("HEXISTS", KEYS[1], "state") == 1 then redis.call("HSET", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

var noteEventsScript = redis.NewScript(events.Lua + `
if redis.call("HEXISTS", KEYS[1], "state") == 0 then return 0 end
if redis.call("HGET", KEYS[1], ARGV[1]) ~= ARGV[2] then eventsAdd(KEYS[2], ARGV[3], ARGV[4]) end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 0`)

// note writes an entry for a message.
func (l *ledger) note(ctx context.Context, t *taskMessage, r wire.Record) error {
	return l.noteWith(ctx, t, r, "")
}

// noteWith is note, with events that go with the entry.
func (l *ledger) noteWith(ctx context.Context, t *taskMessage, r wire.Record, told string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.correct(t, string(data))
	if told == "" {
		err = l.redis.Eval(ctx, noteScript, []string{t.key}, wire.FieldSent+t.suffix, string(data)).Err()
	} else {
		keys := []string{t.key, events.Key(t.queue)}
		err = noteEventsScript.Run(ctx, l.redis, keys, wire.FieldSent+t.suffix, string(data), told, l.history.events.Size).Err()
	}
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// leaves notes how a message is to go on that leaves its bulk task, with its events. It returns another outcome if there is one in
// Redis: it was cancelled, or the bulk task is another worker's, or another run has decided about the message.
func (l *ledger) leaves(ctx context.Context, t *taskMessage, how wire.Remainder, told string) (left bool, o outcome, err error) {
	data, err := json.Marshal(wire.Record{Moved: true, Rest: &how})
	if err != nil {
		return false, o, err
	}
	step := asynqbatch.Step{Name: stepLeave, Args: []string{string(data)}, Notes: asynqbatch.Notes{Events: told}}
	return l.decide(ctx, t, step)
}

// decide does the step decide or leave, with what its arguments have beside those that both have. left is false if something else has
// become of the message.
func (l *ledger) decide(ctx context.Context, t *taskMessage, step asynqbatch.Step) (left bool, o outcome, err error) {
	step.Key, step.Args = t.key, append([]string{t.suffix, wire.CancelledKey(t.queue, t.base())}, step.Args...)
	a := l.records.Do(ctx, []asynqbatch.Step{step})[0]
	record, sent := strings.CutPrefix(a.Text, saySent)
	switch {
	case a.Err != nil:
		return false, o, redisconn.Unavailable(a.Err)
	case a.Text == "", a.Text == sayGone && l.records.Sure(t.key):
		return true, o, nil
	case a.Text == sayCancelled:
		return false, outcome{verdict: verdict{Action: drop}}, nil
	case sent:
		o, err = outcomeOf(record)
		return false, o, err
	}
	return false, o, errNotOurs
}

// hasLeft notes in the bulk task that a message comes from that it has left: what is on its way
// alone must not be sent there again, though a worker may have died before it noted that.
func (l *ledger) hasLeft(ctx context.Context, t *taskMessage) error {
	task, _, ok := wire.SplitID(t.id)
	if !ok || t.retried > 0 {
		return nil
	}
	there := *t
	there.name.Bulk, there.suffix = true, t.id[len(task):]
	names := []wire.QueueName{there.name}
	if t.name.Mailer != "" { // it may have been forwarded
		there.name.Mailer = ""
		names = append(names, there.name)
	}
	for _, name := range names {
		there.key = asynqbatch.TaskKey(name.String(), task)
		if err := l.note(ctx, &there, wire.Record{Moved: true}); err != nil {
			return err
		}
	}
	return nil
}

// correct replaces what is remembered of a message.
func (l *ledger) correct(t *taskMessage, data string) {
	if t.payload == nil {
		return // it cannot be read, so it was not sent
	}
	name := entryName(t.key, t.payload.Generation(), t.suffix)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.recent.Get(name); ok {
		l.recent.Put(name, data)
	}
}

// decided makes it too late to cancel a message that was not on the wire. It returns
// another outcome instead of o if there is one in Redis: it was cancelled, or an earlier
// try has sent it. The error is errNotOurs if the task is another worker's.
func (l *ledger) decided(ctx context.Context, t *taskMessage, o outcome) (outcome, error) {
	left, other, err := l.decide(ctx, t, asynqbatch.Step{Name: stepDecide})
	if err != nil || left {
		return o, err
	}
	return other, nil
}
