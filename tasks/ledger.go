package tasks

import (
	"context"
	"errors"
	"iter"
	"slices"
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
type ledger struct {
	redis redis.UniversalClient
	acks  acknowledger
	log   zerolog.Logger

	outcomes *batcher.Batcher[*job] // to be written down, then given to their handlers

	mu      sync.Mutex
	wake    chan struct{} // holds a token when Redis is to be told again, or when it is to end
	ending  bool
	recent  map[string]string // what this worker has sent last: records by the names of jobs
	order   []string          // the keys of recent, a ring
	oldest  int               // where the ring begins, once it is full
	missing bool              // Redis may lack some of recent
}

// acknowledger ends tasks, in one round trip: an asynqbatch.Client.
type acknowledger interface {
	Acknowledge(keys []string) []error
}

// remember is how many messages a worker remembers by itself: the last seconds at full
// speed. While Redis is away nothing more is sent, so what it may have missed or, after
// a failover, forgotten is among them.
const remember = 50_000

// restorePause is how long after a failure Redis is told again. Another worker may be given
// the task as soon as Redis is back.
const restorePause = 100 * time.Millisecond

func newLedger(client redis.UniversalClient, acks acknowledger, log zerolog.Logger) *ledger {
	l := &ledger{redis: client, acks: acks, log: log, wake: make(chan struct{}, 1), recent: map[string]string{}}
	l.outcomes = batcher.New(l.write)
	return l
}

// errBegun is what became of an at_most_once message whose earlier try has no known end.
var errBegun = errors.New("an earlier try was cut off: the message may have been delivered (at_most_once)")

// unsent returns the jobs that may be sent, and settles the others: those that were
// accepted before, at_most_once ones that may have been, and cancelled ones. It asks
// Redis once for all of them, and makes it too late to cancel them. If Redis does not
// answer, nothing may be sent.
func (l *ledger) unsent(ctx context.Context, jobs []*job) ([]*job, error) {
	notes, err := l.ask(ctx, jobs)
	if err != nil {
		l.lost()
		return nil, redisconn.Unavailable(err)
	}
	if err := l.tidy(ctx, jobs, notes); err != nil {
		return nil, err
	}
	left := make([]*job, 0, len(jobs))
	for i, j := range jobs {
		if !l.settle(j, notes[i]) {
			left = append(left, j)
		}
	}
	return left, nil
}

// note is what the ledger has of one message.
type note struct {
	sent, begun string
	cancelled   bool
}

// ask marks the jobs as on the wire and returns what the ledger has of them. Messages
// of one task are asked for together.
func (l *ledger) ask(ctx context.Context, jobs []*job) ([]note, error) {
	var answers []*redis.SliceCmd
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for run := range runs(jobs) {
			marks, fields := make([]any, 0, 2*len(run)), make([]string, 0, 1+3*len(run))
			fields = append(fields, "state")
			for _, j := range run {
				if j.onceToken != "" {
					p.HSetNX(ctx, j.key, wire.FieldBegun+j.slot, j.onceToken)
				}
				marks = append(marks, wire.FieldWire+j.slot, j.token)
				fields = append(fields, wire.FieldSent+j.slot, wire.FieldBegun+j.slot, wire.FieldCancelled+j.slot)
			}
			p.HSet(ctx, run[0].key, marks...) // before cancelled is read
			answers = append(answers, p.HMGet(ctx, run[0].key, fields...))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	notes := make([]note, 0, len(jobs))
	for run := range runs(jobs) {
		fields := answers[0].Val()
		answers = answers[1:]
		for i, j := range run {
			j.gone = text(fields, 0) == ""
			notes = append(notes, note{
				sent: text(fields, 3*i+1), begun: text(fields, 3*i+2), cancelled: text(fields, 3*i+3) != "",
			})
		}
	}
	return notes, nil
}

// runs yields the jobs by their tasks: those of one task stand together.
func runs(jobs []*job) iter.Seq[[]*job] {
	return func(yield func([]*job) bool) {
		for len(jobs) > 0 {
			n := 1
			for n < len(jobs) && jobs[n].key == jobs[0].key {
				n++
			}
			if !yield(jobs[:n]) {
				return
			}
			jobs = jobs[n:]
		}
	}
}

// tidy removes what unsent has written for tasks that are not there any more, and says
// which of them were cancelled. The others are sent: Redis may have forgotten them.
func (l *ledger) tidy(ctx context.Context, jobs []*job, notes []note) error {
	answers := map[int]*redis.Cmd{}
	if !slices.ContainsFunc(jobs, func(j *job) bool { return j.gone }) {
		return nil
	}
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, j := range jobs {
			if j.gone {
				answers[i] = p.Eval(ctx, goneScript, []string{j.key, j.cancelled})
			}
		}
		return nil
	})
	if err != nil {
		l.lost()
		return redisconn.Unavailable(err)
	}
	for i, a := range answers {
		notes[i].cancelled, _ = a.Bool()
	}
	return nil
}

// released takes back that a try has begun: the relay took nothing.
func (l *ledger) released(ctx context.Context, jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // the batch's time may be up
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, j := range jobs {
			offWire(ctx, p, j)
			if j.onceToken != "" {
				p.HDel(ctx, j.key, wire.FieldBegun+j.slot)
			}
		}
		return nil
	})
	if err != nil {
		l.lost() // if this worker ends now, another one takes these for doubtful
	}
}

func text(fields []any, i int) string {
	if i < len(fields) {
		s, _ := fields[i].(string)
		return s
	}
	return ""
}

// settle ends a job whose message must not be sent any more: it was sent, or it was
// cancelled, or an at_most_once try that is not this one has begun and left no word of
// its end.
func (l *ledger) settle(j *job, n note) bool {
	if known, ok := l.remembered(j.name()); ok {
		n.sent = known
	}
	switch {
	case n.sent != "":
		o, err := outcomeOf(n.sent)
		if err != nil {
			l.log.Error().Err(err).Msg("ledger entry that cannot be read: the message counts as sent")
		}
		j.end(o)
	case n.cancelled:
		j.end(outcome{verdict: verdict{action: drop}})
	case j.onceToken != "" && n.begun != j.onceToken:
		j.end(outcome{verdict: verdict{action: deadLetter, reason: errBegun}})
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
// killed. It is false if Redis could not be told.
func (l *ledger) finish(jobs []*job) bool {
	entries := l.endTasks(jobs)
	if len(entries) == 0 {
		return true
	}
	written := make(chan bool, len(entries))
	for _, j := range entries {
		j.written = written
	}
	l.outcomes.Add(entries...)
	told := true
	for range entries {
		told = <-written && told
	}
	return told
}

// endTasks finishes the jobs that need no entry, or whose task's end is as good as one. It
// returns the others.
func (l *ledger) endTasks(jobs []*job) (entries []*job) {
	var ends []*job
	for _, j := range jobs {
		accepted := j.outcome.result.Err == nil && j.outcome.verdict.action == complete && !j.outcome.result.Skipped
		if accepted {
			l.accepted(j)
		}
		switch {
		case accepted && j.endsTask():
			ends = append(ends, j)
		case accepted, j.onceToken != "", j.undelivered():
			entries = append(entries, j)
		default:
			j.end(j.outcome)
		}
	}
	if len(ends) == 0 {
		return entries
	}
	keys := make([]string, len(ends))
	for i, j := range ends {
		keys[i] = j.key
	}
	for i, err := range l.acks.Acknowledge(keys) {
		j := ends[i]
		if err == nil {
			j.end(j.outcome)
			continue
		}
		j.gone = !errors.Is(err, asynqbatch.ErrNotFetched) // by now, if only the reply was lost
		entries = append(entries, j)
	}
	return entries
}

// accepted notes that the relay has accepted a job's message.
func (l *ledger) accepted(j *job) {
	data, err := wire.NewRecord(j.outcome.result).Encode()
	if err != nil {
		data = "{}"
	}
	j.record = data
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(j.name(), data)
}

// untold says that Redis could not be told of messages.
func (l *ledger) untold(err error, messages int) {
	l.log.Error().Err(redisconn.Unavailable(err)).Int("messages", messages).
		Msg("tried, but Redis could not be told: what was sent is remembered here until it can")
	l.lost()
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

// run tells Redis again what it may have missed, until end is called.
func (l *ledger) run(ctx context.Context) {
	for range l.wake {
		l.restore(ctx) // at the end too: nobody else knows of it
		l.mu.Lock()
		ending := l.ending
		l.mu.Unlock()
		if ending {
			return
		}
	}
}

// end makes run return once Redis knows, or does not answer. Nothing may be finished after it.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	l.signal()
}

// write writes the jobs' outcomes in one round trip and lets their tasks end. They end
// also if Redis is away, for they are remembered here.
func (l *ledger) write(jobs []*job) {
	ctx := context.Background() // a batch whose time is up is written down too
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for run := range runs(jobs) {
			writeRun(ctx, p, run)
		}
		return nil
	})
	for _, j := range jobs {
		written := j.written
		j.end(j.outcome)
		written <- err == nil
	}
	if err != nil {
		l.untold(err, len(jobs))
		return
	}
	l.restore(ctx)
}

// writeRun writes the outcomes of messages of one task.
func writeRun(ctx context.Context, p redis.Pipeliner, jobs []*job) {
	var sent []any // fields and records
	for _, j := range jobs {
		switch {
		case j.record != "" && j.gone:
			p.Eval(ctx, restoreScript, []string{j.key}, wire.FieldSent+j.slot, j.record, j.stamp, wire.FieldWire+j.slot)
		case j.record != "":
			sent = append(sent, wire.FieldSent+j.slot, j.record)
		case j.onceToken != "" && mailer.ClassOf(j.outcome.result.Err) != mailer.Unknown:
			p.HDel(ctx, j.key, wire.FieldBegun+j.slot) // this try's end is known, and it was no delivery
		}
		if j.undelivered() {
			offWire(ctx, p, j)
		}
	}
	if len(sent) > 0 {
		p.HSet(ctx, jobs[0].key, sent...)
	}
}
