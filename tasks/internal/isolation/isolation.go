// Package isolation keeps runs of tasks in a worker apart: two of the same task, and those of a task that may have killed workers
// from all others.
//
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
package isolation

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

// Suspicious is how many leases a task has lost that is to run alone.
const Suspicious = 3

// FatalRuns is how many runs of a message alone may have begun and not ended.
const FatalRuns = 2

// ErrNotOurs reports that another worker has the task by now.
var ErrNotOurs = errors.New("another worker has the task")

// Isolation lets a run be the only one in the process.
type Isolation struct {
	// Owner is the owner of a task that this process has: asynqbatch.Client.Owner.
	Owner func(key string) string

	redis redis.UniversalClient
	log   zerolog.Logger
	runs  *semaphore.Weighted // each run has one of it; one that is alone has all

	mu       sync.Mutex
	suspects map[string]int // by the keys of tasks that are about to run: how many leases they have lost
	waiting  int            // runs that wait to be alone
	needed   chan struct{}  // closed while there are any
	alone    int            // runs that wait to be alone, or are

	stopping context.Context //nolint:containedctx // of the worker: what is alone gives up with it
	stop     context.CancelFunc
}

const allRuns = 1 << 30

// New returns an Isolation of tasks in the given Redis. Owner is to be set before a run begins.
func New(client redis.UniversalClient, log zerolog.Logger) *Isolation {
	i := &Isolation{
		redis: client, log: log, runs: semaphore.NewWeighted(allRuns), suspects: map[string]int{}, needed: make(chan struct{}),
		Owner: func(string) string { return "" },
	}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return i
}

// Stop tells what is alone, or waits to be, to give up: the worker ends.
func (i *Isolation) Stop() { i.stop() }

// Stopping ends with Stop.
func (i *Isolation) Stopping() context.Context { return i.stopping }

// Fetched notes how many leases a task has lost that is about to run.
func (i *Isolation) Fetched(key string, lost int) {
	if lost < Suspicious {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.suspects[key] = lost
}

// Lost returns how many leases a task has lost if it is to run alone, else 0.
func (i *Isolation) Lost(key string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.suspects[key]
	delete(i.suspects, key)
	return n
}

// EnterNow begins a run like any other. It is false if one is alone, or waits to be; otherwise leave must be called.
func (i *Isolation) EnterNow() (leave func(), ok bool) {
	return func() { i.runs.Release(1) }, i.runs.TryAcquire(1)
}

// Enter is EnterNow, but waits until ctx ends.
func (i *Isolation) Enter(ctx context.Context) (leave func(), ok bool) {
	if i.runs.Acquire(ctx, 1) != nil {
		return nil, false
	}
	return func() { i.runs.Release(1) }, true
}

// RoomNeeded is closed when a run waits to be alone: then the others give back what is not
// on the wire.
func (i *Isolation) RoomNeeded() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.needed
}

// EnterAlone is Enter for a run that is to be alone.
func (i *Isolation) EnterAlone(ctx context.Context) (leave func(), ok bool) {
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

func (i *Isolation) leaveAlone() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.alone--
}

// Busy reports whether a run waits to be alone, or is: no other task is to be fetched then.
func (i *Isolation) Busy() bool {
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
func (i *Isolation) begin(ctx context.Context, key, suffix string) (token string, died int, err error) {
	token = rand.Text()[:12]
	died, err = i.redis.Eval(ctx, beginScript, []string{key}, wire.FieldAlone+suffix, token, FatalRuns, i.Owner(key)).Int()
	switch {
	case err != nil:
		return "", 0, redisconn.Unavailable(err)
	case died < 0:
		return "", 0, ErrNotOurs
	}
	if died < FatalRuns {
		died = 0
	}
	return token, died, nil
}

// Run runs a message alone, whose fields in the record of the task at key end in suffix. do reports whether the task has shown that
// it kills nobody. It does not run if workers have died in too many such runs, which died is then, or with an error: ErrNotOurs, or that Redis
// could not be asked.
func (i *Isolation) Run(ctx context.Context, key, suffix string, do func() (proven bool)) (died int, err error) {
	token, died, err := i.begin(ctx, key, suffix)
	if err != nil || died > 0 {
		return died, err
	}
	proven := false
	defer func() { i.ended(ctx, key, suffix, token, proven) }() // a panic is no death either
	proven = do()
	return 0, nil
}

// ended strikes a run out, and waits for Redis with that if need be: the process lives.
func (i *Isolation) ended(ctx context.Context, key, suffix, token string, proven bool) {
	ctx = context.WithoutCancel(ctx)
	for {
		err := i.redis.Eval(ctx, endedScript, []string{key}, wire.FieldAlone+suffix, token, proven).Err()
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

// Forgive takes back that the task lost a lease: it was taken away from this process, which
// lives.
func (i *Isolation) Forgive(ctx context.Context, key string) {
	const script = `if redis.call("HEXISTS", KEYS[1], "state") == 1 then redis.call("HINCRBY", KEYS[1], ARGV[1], -1) end return 0`
	if err := i.redis.Eval(context.WithoutCancel(ctx), script, []string{key}, wire.FieldLost).Err(); err != nil {
		i.log.Debug().Err(redisconn.Unavailable(err)).Msg("a lost lease stays counted")
	}
}
