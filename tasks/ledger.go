package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/batcher"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
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
//	unsent    may it be sent? mark it as on the wire      Redis: sent? begun? cancelled?
//	          ... MAIL, RCPT, DATA, the reply: 250 ...
//	finish    remember it, then end its task, or          memory, then Redis
//	          write an entry
//	          ... the handler returns, asynq ends the task and the entry with it
type ledger struct {
	redis redis.UniversalClient
	acks  acknowledger
	log   zerolog.Logger

	outcomes *batcher.Batcher[*delivery] // to be written down, then given to their handlers

	mu      sync.Mutex
	wake    chan struct{} // holds a token when Redis is to be written to again, or when it is to end
	ending  bool
	recent  map[string]string // what this worker has sent last: records by the names of deliveries
	order   []string          // the keys of recent, a ring
	oldest  int               // where the ring begins, once it is full
	missing bool              // Redis may lack some of recent

	unwritten unwritten
}

// acknowledger ends tasks, in one round trip: an asynqbatch.Client.
type acknowledger interface {
	Acknowledge(keys []string) []error
}

// remember is how many messages a worker remembers by itself: the last seconds at full
// speed. While Redis is away nothing more is sent, so what it may have missed or, after
// a failover, forgotten is among them.
const remember = 50_000

// restorePause is how long after a failure Redis is written to again. Another worker may be given
// the task as soon as Redis is back.
const restorePause = 100 * time.Millisecond

func newLedger(client redis.UniversalClient, acks acknowledger, log zerolog.Logger) *ledger {
	l := &ledger{redis: client, acks: acks, log: log, wake: make(chan struct{}, 1), recent: map[string]string{}}
	l.outcomes = batcher.New(l.write)
	return l
}

// errBegun is what became of an at_most_once message whose earlier try has no known end.
var errBegun = errors.New("an earlier try was cut off: the message may have been delivered (at_most_once)")

// unsent returns the deliveries that may be sent, and settles the others: those that were
// accepted before, at_most_once ones that may have been, and cancelled ones. It asks
// Redis once for all of them, and makes it too late to cancel them. If Redis does not
// answer, nothing may be sent.
func (l *ledger) unsent(ctx context.Context, deliveries []*delivery) ([]*delivery, error) {
	notes, err := l.ask(ctx, deliveries)
	if err != nil {
		l.missed()
		return nil, redisconn.Unavailable(err)
	}
	if err := l.tidy(ctx, deliveries, notes); err != nil {
		return nil, err
	}
	left := make([]*delivery, 0, len(deliveries))
	for i, d := range deliveries {
		if !l.settle(d, notes[i]) {
			left = append(left, d)
		}
	}
	return left, nil
}

// note is what the ledger has of one message.
type note struct {
	sent, begun string
	cancelled   bool
}

// ask marks the messages as on the wire and returns what the ledger has of them. Messages
// of one task are asked for together.
func (l *ledger) ask(ctx context.Context, deliveries []*delivery) ([]note, error) {
	var answers []*redis.SliceCmd
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for run := range runs(deliveries) {
			marks, fields := make([]any, 0, 2*len(run)), make([]string, 0, 1+3*len(run))
			fields = append(fields, "state")
			for _, d := range run {
				if d.onceToken != "" {
					p.HSetNX(ctx, d.key, wire.FieldBegun+d.suffix, d.onceToken)
				}
				marks = append(marks, wire.FieldWire+d.suffix, d.token)
				fields = append(fields, wire.FieldSent+d.suffix, wire.FieldBegun+d.suffix, wire.FieldCancelled+d.suffix)
			}
			p.HSet(ctx, run[0].key, marks...) // before cancelled is read
			answers = append(answers, p.HMGet(ctx, run[0].key, fields...))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	notes := make([]note, 0, len(deliveries))
	for run := range runs(deliveries) {
		fields := answers[0].Val()
		answers = answers[1:]
		for i, d := range run {
			d.gone = text(fields, 0) == ""
			notes = append(notes, note{
				sent: text(fields, 3*i+1), begun: text(fields, 3*i+2), cancelled: text(fields, 3*i+3) != "",
			})
		}
	}
	return notes, nil
}

// tidy removes what unsent has written for tasks that are not there any more, and says
// which of them were cancelled. The others are sent: Redis may have forgotten them.
func (l *ledger) tidy(ctx context.Context, deliveries []*delivery, notes []note) error {
	answers := map[int]*redis.Cmd{}
	if !slices.ContainsFunc(deliveries, func(d *delivery) bool { return d.gone }) {
		return nil
	}
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, d := range deliveries {
			if d.gone {
				answers[i] = p.Eval(ctx, goneScript, []string{d.key, d.cancelled})
			}
		}
		return nil
	})
	if err != nil {
		l.missed()
		return redisconn.Unavailable(err)
	}
	for i, a := range answers {
		notes[i].cancelled, _ = a.Bool()
	}
	return nil
}

// released takes back that a try has begun: the relay took nothing.
func (l *ledger) released(ctx context.Context, deliveries []*delivery) {
	if len(deliveries) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // the batch's time may be up
	once := slices.DeleteFunc(slices.Clone(deliveries), func(d *delivery) bool { return d.onceToken == "" })
	l.unwritten.add(once...)
	defer l.unwritten.written(once...)
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, d := range deliveries {
			offWire(ctx, p, d)
			if d.onceToken != "" {
				p.HDel(ctx, d.key, wire.FieldBegun+d.suffix)
			}
		}
		return nil
	})
	if err != nil {
		l.missed() // if this worker ends now, another one takes these for doubtful
	}
}

func text(fields []any, i int) string {
	if i < len(fields) {
		s, _ := fields[i].(string)
		return s
	}
	return ""
}

// settle ends a delivery whose message must not be sent any more: it was sent, or it was
// cancelled, or an at_most_once try that is not this one has begun and left no word of
// its end.
func (l *ledger) settle(d *delivery, n note) bool {
	if known, ok := l.remembered(d.name()); ok {
		n.sent = known
	}
	switch {
	case n.sent != "":
		o, err := outcomeOf(n.sent)
		if err != nil {
			l.log.Error().Err(err).Msg("ledger entry that cannot be read: the message counts as sent")
		}
		d.end(o)
	case n.cancelled:
		d.end(outcome{verdict: verdict{action: drop}})
	case d.onceToken != "" && n.begun != d.onceToken:
		d.end(outcome{verdict: verdict{action: deadLetter, reason: errBegun}})
	default:
		return false
	}
	return true
}

func (l *ledger) remembered(key string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.recent[key]
	return r, ok
}

// finish writes outcomes down, where that is called for, and gives them to the handlers. It
// returns when that is done: a sender goes on to its next messages when Redis knows of
// the last ones, so that only what it had on the wire is sent twice if the worker is
// killed. It is false if Redis could not be written to.
func (l *ledger) finish(deliveries []*delivery) bool {
	entries := l.acknowledge(deliveries)
	if len(entries) == 0 {
		return true
	}
	written := make(chan bool, len(entries))
	for _, d := range entries {
		if d.written = written; d.onceToken != "" {
			l.unwritten.add(d)
		}
	}
	l.outcomes.Add(entries...)
	known := true
	for range entries {
		known = <-written && known
	}
	return known
}

// acknowledge finishes the deliveries that need no entry, or whose task's end is as good as one. It
// returns the others.
func (l *ledger) acknowledge(deliveries []*delivery) (entries []*delivery) {
	var ends []*delivery
	for _, d := range deliveries {
		accepted := d.outcome.result.Err == nil && d.outcome.verdict.action == complete && !d.outcome.result.Skipped
		if accepted {
			l.accepted(d)
		}
		switch {
		case accepted && d.endsTask():
			ends = append(ends, d)
		case accepted, d.onceToken != "", d.undelivered():
			entries = append(entries, d)
		default:
			d.end(d.outcome)
		}
	}
	if len(ends) == 0 {
		return entries
	}
	keys := make([]string, len(ends))
	for i, d := range ends {
		keys[i] = d.key
	}
	for i, err := range l.acks.Acknowledge(keys) {
		d := ends[i]
		if err == nil {
			l.unwritten.written(d)
			d.end(d.outcome)
			continue
		}
		d.gone = !errors.Is(err, asynqbatch.ErrNotFetched) // by now, if only the reply was lost
		entries = append(entries, d)
	}
	return entries
}

// accepted notes that the relay has accepted a message.
func (l *ledger) accepted(d *delivery) {
	data, err := wire.NewRecord(d.outcome.result).Encode()
	if err != nil {
		data = "{}"
	}
	d.record = data
	l.unwritten.add(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(d.name(), data)
}

// failed notes that Redis could not be written to.
func (l *ledger) failed(err error, messages int) {
	l.log.Error().Err(redisconn.Unavailable(err)).Int("messages", messages).
		Msg("tried, but Redis could not be told: what was sent is remembered here until it can")
	l.missed()
}

// remember keeps a record in memory in place of the oldest one. l.mu is held.
func (l *ledger) remember(key, data string) {
	l.recent[key] = data
	if len(l.order) < remember {
		l.order = append(l.order, key)
		return
	}
	delete(l.recent, l.order[l.oldest])
	l.order[l.oldest] = key
	l.oldest = (l.oldest + 1) % remember
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

// write writes the outcomes in one round trip and lets their tasks end. They end
// also if Redis is away, for they are remembered here.
func (l *ledger) write(deliveries []*delivery) {
	ctx := context.Background() // a batch whose time is up is written down too
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for run := range runs(deliveries) {
			writeRun(ctx, p, run)
		}
		return nil
	})
	for _, d := range deliveries {
		written := d.written
		if err == nil || d.record == "" {
			l.unwritten.written(d)
		}
		d.end(d.outcome)
		written <- err == nil
	}
	if err != nil {
		l.failed(err, len(deliveries))
		return
	}
	l.restore(ctx)
}

// writeRun writes the outcomes of messages of one task.
func writeRun(ctx context.Context, p redis.Pipeliner, deliveries []*delivery) {
	var sent []any // fields and records
	for _, d := range deliveries {
		switch {
		case d.record != "" && d.gone:
			p.Eval(ctx, restoreScript, []string{d.key}, wire.FieldSent+d.suffix, d.record, d.generation, wire.FieldWire+d.suffix)
		case d.record != "":
			sent = append(sent, wire.FieldSent+d.suffix, d.record)
		case d.onceToken != "" && mailer.ClassOf(d.outcome.result.Err) != mailer.Unknown:
			p.HDel(ctx, d.key, wire.FieldBegun+d.suffix) // this try's end is known, and it was no delivery
		}
		if d.undelivered() {
			offWire(ctx, p, d)
		}
	}
	if len(sent) > 0 {
		p.HSet(ctx, deliveries[0].key, sent...)
	}
}

// goneScript tidies up after a worker that has marked a task which is not there, and
// returns 1 if the task was cancelled.
const goneScript = `
if redis.call("HEXISTS", KEYS[1], "state") == 0 then redis.call("DEL", KEYS[1]) end
return redis.call("EXISTS", KEYS[2])`

// offWireScript takes back that a try is on the wire, unless another one is.
const offWireScript = `
if redis.call("HGET", KEYS[1], ARGV[1]) == ARGV[2] then redis.call("HDEL", KEYS[1], ARGV[1]) end
return 0`

// offWire adds the command that takes back what unsent has written for a delivery.
func offWire(ctx context.Context, p redis.Pipeliner, d *delivery) {
	p.Eval(ctx, offWireScript, []string{d.key}, wire.FieldWire+d.suffix, d.token)
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
// ARGV[3] in its wire mark ARGV[4], if that is not empty.
const restoreScript = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
local wire = redis.call("HGET", KEYS[1], ARGV[4]) or ""
if string.sub(wire, 1, #ARGV[3]) == ARGV[3] then redis.call("HSETNX", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

// restore writes all that this worker remembers again, after Redis was away.
func (l *ledger) restore(ctx context.Context) {
	l.mu.Lock()
	if !l.missing {
		l.mu.Unlock()
		return
	}
	entries := maps.Clone(l.recent)
	l.missing = false // before it is written: what Redis misses from now on is written the next time
	l.mu.Unlock()
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for name, data := range entries {
			key, after, _ := strings.Cut(name, "\x00")
			generation, suffix, _ := strings.Cut(after, "\x00")
			p.Eval(ctx, restoreScript, []string{key}, wire.FieldSent+suffix, data, generation, wire.FieldWire+suffix)
		}
		return nil
	})
	if err != nil {
		l.missed()
		return
	}
	l.unwritten.restored(entries)
}

// noteScript writes an entry of a task that is there.
const noteScript = `
if redis.call("EXISTS", KEYS[1]) == 1 then redis.call("HSET", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

// note writes an entry for a message.
func (l *ledger) note(ctx context.Context, t *taskMessage, r wire.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.correct(t, string(data))
	if err := l.redis.Eval(ctx, noteScript, []string{t.key}, wire.FieldSent+t.suffix, string(data)).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// leaveScript writes the entry of a message that is about to leave its bulk task, if the try
// ARGV[3] has it still, and it has no entry.
const leaveScript = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 1 end
local wire, sent = unpack(redis.call("HMGET", KEYS[1], ARGV[1], ARGV[2]))
if sent or wire ~= ARGV[3] and wire ~= "decided" then return 0 end
redis.call("HSET", KEYS[1], ARGV[2], ARGV[4])
return 1`

// leaves notes how a message is to go on. It is false if another run of its bulk task
// decides about it: asynq has given that out again.
func (l *ledger) leaves(ctx context.Context, t *taskMessage, how wire.Remainder) (bool, error) {
	data, err := json.Marshal(wire.Record{Moved: true, Rest: &how})
	if err != nil {
		return false, err
	}
	ours, err := l.redis.Eval(ctx, leaveScript, []string{t.key}, wire.FieldWire+t.suffix, wire.FieldSent+t.suffix, t.token, string(data)).Bool()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	return ours, nil
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
	if _, ok := l.recent[name]; ok {
		l.recent[name] = data
	}
}

// decideScript is the worker's side of cancelScript for a message that ends, or moves on,
// without being on the wire: from now on it is too late. It returns what else
// has become of the message before.
const decideScript = `
local state, cancelled, sent = unpack(redis.call("HMGET", KEYS[1], "state", ARGV[2], ARGV[3]))
if not state then
  if redis.call("EXISTS", KEYS[2]) == 1 then return "cancelled" end
  return ""
end
if sent then return "sent:" .. sent end
if cancelled then return "cancelled" end
redis.call("HSET", KEYS[1], ARGV[1], "decided")
return ""`

// decided makes it too late to cancel a message that was not on the wire. It returns
// another outcome instead of o if there is one in Redis: it was cancelled, or an earlier
// try has sent it.
func (l *ledger) decided(ctx context.Context, t *taskMessage, o outcome) (outcome, error) {
	keys := []string{t.key, wire.CancelledKey(t.queue, t.base())}
	answer, err := l.redis.Eval(ctx, decideScript, keys, wire.FieldWire+t.suffix, wire.FieldCancelled+t.suffix, wire.FieldSent+t.suffix).Text()
	if err != nil {
		return o, redisconn.Unavailable(err)
	}
	if answer == "cancelled" {
		return outcome{verdict: verdict{action: drop}}, nil
	}
	if sent, ok := strings.CutPrefix(answer, "sent:"); ok {
		return outcomeOf(sent)
	}
	return o, nil
}
