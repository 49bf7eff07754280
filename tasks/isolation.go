package tasks

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

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
// task that has lost three runs with nothing else in the process, a bulk task message by
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
	runs  *semaphore.Weighted     // each run has one of it; one that is alone has all
	owner func(key string) string // of a task that this process has: asynqbatch.Client.Owner

	mu       sync.Mutex
	suspects map[string]int // by the keys of tasks that are about to run: how many leases they have lost
	waiting  int            // runs that wait to be alone
	needed   chan struct{}  // closed while there are any
	alone    int            // runs that wait to be alone, or are

	stopping context.Context //nolint:containedctx // of the worker: what is alone gives up with it
	stop     context.CancelFunc
}

const allRuns = 1 << 30

func newIsolation(client redis.UniversalClient, log zerolog.Logger) *isolation {
	i := &isolation{
		redis: client, log: log, runs: semaphore.NewWeighted(allRuns), suspects: map[string]int{}, needed: make(chan struct{}),
		owner: func(string) string { return "" },
	}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return i
}

// fetched notes how many leases a task has lost that is about to run.
func (i *isolation) fetched(key string, lost int) {
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

// enterNow begins a run like any other. It is false if one is alone, or waits to be; otherwise leave must be called.
func (i *isolation) enterNow() (leave func(), ok bool) {
	return func() { i.runs.Release(1) }, i.runs.TryAcquire(1)
}

// enter is enterNow, but waits until ctx ends.
func (i *isolation) enter(ctx context.Context) (leave func(), ok bool) {
	if i.runs.Acquire(ctx, 1) != nil {
		return nil, false
	}
	return func() { i.runs.Release(1) }, true
}

// roomNeeded is closed when a run waits to be alone: then the others give back what is not
// on the wire.
func (i *isolation) roomNeeded() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.needed
}

// enterAlone is enter for a run that is to be alone.
func (i *isolation) enterAlone(ctx context.Context) (leave func(), ok bool) {
	i.mu.Lock()
	i.alone++
	if i.waiting++; i.waiting == 1 {
		close(i.needed)
	}
	i.mu.Unlock()
	err := i.runs.Acquire(ctx, allRuns)
	i.mu.Lock()
	if i.waiting--; i.waiting == 0 {
		i.needed = make(chan struct{})
	}
	i.mu.Unlock()
	if err != nil {
		i.leaveAlone()
		return nil, false
	}
	return func() {
		i.runs.Release(allRuns)
		i.leaveAlone()
	}, true
}

func (i *isolation) leaveAlone() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.alone--
}

// busy reports whether a run waits to be alone, or is: no other task is to be fetched then.
func (i *isolation) busy() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.alone > 0
}

// beginScript notes in the task at KEYS[1] that the run ARGV[2] begins, among the runs in
// the field ARGV[1], and returns how many are there already: ARGV[3] are too many. It returns -1 if the owner
// of the task is not ARGV[4], and 0 if it is not there.
const beginScript = `
local state, owner = unpack(redis.call("HMGET", KEYS[1], "state", "` + wire.FieldOwner + `"))
if not state then return 0 end
if (owner or "") ~= ARGV[4] then return -1 end
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
func (i *isolation) begin(ctx context.Context, t *taskMessage) (token string, died int, err error) {
	token = rand.Text()[:12]
	died, err = i.redis.Eval(ctx, beginScript, []string{t.key}, wire.FieldAlone+t.suffix, token, fatalRuns, i.owner(t.key)).Int()
	switch {
	case err != nil:
		return "", 0, errGivenBack
	case died < 0:
		return "", 0, errNotOurs
	}
	if died < fatalRuns {
		died = 0
	}
	return token, died, nil
}

// run runs a message alone, unless workers have died in too many such runs: then it returns in
// how many.
func (i *isolation) run(ctx context.Context, t *taskMessage, do func() error) (died int, err error) {
	token, died, err := i.begin(ctx, t)
	if err != nil || died > 0 {
		return died, err
	}
	proven := false
	defer func() { i.ended(ctx, t, token, proven) }() // a panic is no death either
	err = do()
	proven = !errors.Is(err, errGivenBack) && t.suffix == ""
	return 0, err
}

// ended strikes a run out, and waits for Redis with that if need be: the process lives.
func (i *isolation) ended(ctx context.Context, t *taskMessage, token string, proven bool) {
	ctx = context.WithoutCancel(ctx)
	for {
		err := i.redis.Eval(ctx, endedScript, []string{t.key}, wire.FieldAlone+t.suffix, token, proven).Err()
		if err == nil {
			return
		}
		i.log.Warn().Err(redisconn.Unavailable(err)).Msg("cannot note that a message has not killed its worker: trying again")
		select {
		case <-time.After(time.Second):
		case <-i.stopping.Done():
			return
		}
	}
}

// forgive takes back that the task lost a lease: it was taken away from this process, which
// lives.
func (i *isolation) forgive(ctx context.Context, key string) {
	const script = `if redis.call("HEXISTS", KEYS[1], "state") == 1 then redis.call("HINCRBY", KEYS[1], ARGV[1], -1) end return 0`
	if err := i.redis.Eval(context.WithoutCancel(ctx), script, []string{key}, wire.FieldLost).Err(); err != nil {
		i.log.Debug().Err(redisconn.Unavailable(err)).Msg("a lost lease stays counted")
	}
}

// inFlight knows which tasks this worker has, and keeps two handlers from having the
// same one. asynq may give a task out again while its message is still on the wire: after
// a failover to a replica that has not heard that it was given out, or when its lease ran out
// while Redis was away. The second handler waits for the first, and then finds in the
// ledger's memory what became of the message. The zero value is ready for use.
type inFlight struct {
	mu    sync.Mutex
	tasks map[string]chan struct{} // by task key; closed when the handler has ended
}

// take waits until no other handler has the task. It is false if ctx ended first;
// otherwise release must be called.
func (h *inFlight) take(ctx context.Context, key string) (release func(), ok bool) {
	for {
		other := h.enter(key)
		if other == nil {
			return func() { h.leave(key) }, true
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// enter returns nil if the task is now ours, else what to wait for.
func (h *inFlight) enter(key string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, ok := h.tasks[key]; ok {
		return other
	}
	if h.tasks == nil {
		h.tasks = map[string]chan struct{}{}
	}
	h.tasks[key] = make(chan struct{})
	return nil
}

// len is how many tasks the worker has in hand.
func (h *inFlight) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tasks)
}

func (h *inFlight) leave(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.tasks[key])
	delete(h.tasks, key)
}
