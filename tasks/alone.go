package tasks

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A message can kill its worker, as one does that needs more memory to be written than the
// process may have. Who takes its task over dies of it too, and a lost lease costs no
// try: without more ado one message would kill every worker, for ever.
//
// So lost leases are counted in the task's record. Most are nobody's fault: a worker was
// evicted, another message killed it, Redis was away. A count condemns nothing, but a
// task that has lost three runs with nothing else in the process, a mass task message by
// message. Each such run is noted before it begins and struck out when it ends, by
// whatever end the process lives to see. The message of two runs that have begun and not
// ended, the third one about to begin, is a dead letter.
const (
	suspicious = 3
	fatalRuns  = 2
)

// isolation lets a run be the only one in the process.
type isolation struct {
	redis redis.UniversalClient
	log   zerolog.Logger
	runs  *semaphore.Weighted // each run has one of it; one that is alone has all

	mu       sync.Mutex
	suspects map[string]int // by the keys of tasks that are about to run: how many leases they have lost
	waiting  int            // runs that wait to be alone
	wanted   chan struct{}  // closed while there are any

	stopping context.Context //nolint:containedctx // of the worker: what is alone gives up with it
	stop     context.CancelFunc
}

const allRuns = 1 << 30

func newIsolation(client redis.UniversalClient, log zerolog.Logger) *isolation {
	i := &isolation{
		redis: client, log: log, runs: semaphore.NewWeighted(allRuns), suspects: map[string]int{}, wanted: make(chan struct{}),
	}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return i
}

// taken notes how many leases a task has lost that is about to run.
func (i *isolation) taken(key string, lost int) {
	if lost < suspicious {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.suspects[key] = lost
}

// lost returns how many leases a task has lost if it is to run alone, else 0.
func (i *isolation) lost(key string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.suspects[key]
	delete(i.suspects, key)
	return n
}

// enter begins a run like any other. It is false if ctx ended first; otherwise leave must be
// called.
func (i *isolation) enter(ctx context.Context) (leave func(), ok bool) {
	if i.runs.Acquire(ctx, 1) != nil {
		return nil, false
	}
	return func() { i.runs.Release(1) }, true
}

// roomWanted is closed when a run waits to be alone: then the others give back what is not
// on the wire.
func (i *isolation) roomWanted() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.wanted
}

// enterAlone is enter for a run that is to be alone.
func (i *isolation) enterAlone(ctx context.Context) (leave func(), ok bool) {
	i.mu.Lock()
	if i.waiting++; i.waiting == 1 {
		close(i.wanted)
	}
	i.mu.Unlock()
	err := i.runs.Acquire(ctx, allRuns)
	i.mu.Lock()
	if i.waiting--; i.waiting == 0 {
		i.wanted = make(chan struct{})
	}
	i.mu.Unlock()
	if err != nil {
		return nil, false
	}
	return func() { i.runs.Release(allRuns) }, true
}

// beginScript notes in the task at KEYS[1] that the run ARGV[2] begins, among the runs in
// the field ARGV[1], and returns how many are there already: ARGV[3] are too many.
const beginScript = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
local begun = redis.call("HGET", KEYS[1], ARGV[1]) or ""
local _, n = string.gsub(begun, " ", "")
if n < tonumber(ARGV[3]) then redis.call("HSET", KEYS[1], ARGV[1], begun .. ARGV[2] .. " ") end
return n`

// endedScript strikes the run ARGV[2] out, and what the task has lost if ARGV[3] is 1: it has
// shown that it kills nobody.
const endedScript = `
local begun = redis.call("HGET", KEYS[1], ARGV[1])
if not begun then return 0 end
begun = string.gsub(begun, ARGV[2] .. " ", "")
if begun == "" then redis.call("HDEL", KEYS[1], ARGV[1]) else redis.call("HSET", KEYS[1], ARGV[1], begun) end
if ARGV[3] == "1" then redis.call("HDEL", KEYS[1], "` + wire.FieldLost + `") end
return 0`

// begin notes that a run of a message alone begins, and returns what ended needs. Where too
// many have begun and not ended it does not begin, and died is how many.
func (i *isolation) begin(ctx context.Context, t *ticket) (token string, died int, err error) {
	token = rand.Text()[:12]
	died, err = i.redis.Eval(ctx, beginScript, []string{t.key}, wire.FieldAlone+t.slot, token, fatalRuns).Int()
	if err != nil {
		return "", 0, errGivenBack
	}
	if died < fatalRuns {
		died = 0
	}
	return token, died, nil
}

// run runs a message alone, unless workers have died in too many such runs: then it returns in
// how many.
func (i *isolation) run(ctx context.Context, t *ticket, do func() error) (died int, err error) {
	token, died, err := i.begin(ctx, t)
	if err != nil || died > 0 {
		return died, err
	}
	proven := false
	defer func() { i.ended(ctx, t, token, proven) }() // a panic is no death either
	err = do()
	proven = !errors.Is(err, errGivenBack) && t.slot == ""
	return 0, err
}

// ended strikes a run out, and waits for Redis with that if need be: the process lives.
func (i *isolation) ended(ctx context.Context, t *ticket, token string, proven bool) {
	ctx = context.WithoutCancel(ctx)
	for {
		err := i.redis.Eval(ctx, endedScript, []string{t.key}, wire.FieldAlone+t.slot, token, proven).Err()
		if err == nil {
			return
		}
		i.log.Warn().Err(redisconn.Unavailable(err)).Msg("cannot note that a message has not killed its worker: trying again")
		select {
		case <-time.After(probeMin):
		case <-i.stopping.Done():
			return
		}
	}
}

// forgive takes back that the task lost a lease: it was taken away from this process, which
// lives.
func (i *isolation) forgive(ctx context.Context, key string) {
	const script = `if redis.call("EXISTS", KEYS[1]) == 1 then redis.call("HINCRBY", KEYS[1], ARGV[1], -1) end return 0`
	if err := i.redis.Eval(context.WithoutCancel(ctx), script, []string{key}, wire.FieldLost).Err(); err != nil {
		i.log.Debug().Err(redisconn.Unavailable(err)).Msg("a lost lease stays counted")
	}
}

// processAlone runs a task that has lost so many leases with nothing else in the process.
// Its relay must take mail, for otherwise it would wait, and all others with it.
func (w *Worker) processAlone(ctx context.Context, t *ticket, lost int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.alone.stopping, cancel)()
	l := w.lanes[t.name.Mailer]
	for {
		if !l.breaker.untilReset(ctx) {
			return errGivenBack
		}
		leave, ok := w.alone.enterAlone(ctx)
		if !ok {
			return errGivenBack
		}
		if l.breaker.tripped() {
			leave()
			continue
		}
		defer leave()
		break
	}
	w.log.Warn().Str("task", t.id).Str("queue", t.queue).Int("lost_leases", lost).
		Msg("workers that had this task died, or were cut off: it runs with nothing else in the process")
	t.alone = true
	if t.task.Type() == wire.TaskTypeBulk {
		return w.processMassAlone(ctx, t, lost)
	}
	died, err := w.alone.run(ctx, t, func() error { return w.processOne(ctx, t) })
	if died > 0 {
		return w.condemn(ctx, t, lost)
	}
	return err
}

// condemn makes a dead letter of a message that has not been read: that alone might kill
// the process. What its record has of that is forgotten: a person who runs it again
// gives it all its runs again. One that was sent after all, or cancelled, ends so.
func (w *Worker) condemn(ctx context.Context, t *ticket, lost int) error {
	o, err := w.decided(ctx, t, dead(diedOf(lost)))
	if err != nil {
		return err
	}
	if o.verdict.action != deadLetter {
		return w.processOne(ctx, t)
	}
	if o, err = w.settle(ctx, t, o); err != nil {
		return err
	}
	if err := w.redis.HDel(ctx, t.key, wire.FieldAlone, wire.FieldLost).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	w.ended(t, o)
	return o.verdict.taskError()
}

// diedOf is why a message is a dead letter whose workers died.
func diedOf(times int) error {
	return fmt.Errorf("its worker died %d times, the last %d with nothing else to do: "+
		"look at what it is before it is sent again, and at the memory that a worker may have", times, fatalRuns)
}

// processMassAlone runs a mass task message by message.
func (w *Worker) processMassAlone(ctx context.Context, t *ticket, lost int) error {
	lines := slices.Collect(bytes.Lines(t.task.Payload()))
	r := &massRun{w: w, task: t, messages: make([]*ticket, len(lines))}
	defer r.endSpans()
	for i := range lines {
		r.messages[i] = t.part(i)
	}
	for i, m := range r.messages {
		died, err := w.alone.run(ctx, m, func() error { return r.only(ctx, m, lines[i]) })
		if died > 0 {
			err = r.condemn(ctx, m, lines[i], lost)
		}
		if err != nil {
			return err
		}
	}
	return r.end()
}

// only sends one message of the task.
func (r *massRun) only(ctx context.Context, m *ticket, line []byte) error {
	p, err := wire.Decode(line, r.task.task.Headers())
	if m.payload = p; err != nil {
		return r.settle(ctx, m, dead(err))
	}
	l, ok := r.w.lanes[p.Using]
	if !ok {
		return r.settle(ctx, m, dead(unknownHere(p.Using)))
	}
	if o, settled := r.unsendable(m, l, nil); settled {
		return r.settle(ctx, m, o)
	}
	return r.sendAll(ctx, l, []*ticket{m})
}

// condemn makes a task of a message that has killed its workers. It becomes a dead letter,
// unread.
func (r *massRun) condemn(ctx context.Context, m *ticket, line []byte, lost int) error {
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
