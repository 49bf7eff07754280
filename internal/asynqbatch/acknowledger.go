package asynqbatch

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/batcher"
)

// acknowledger acknowledges tasks: those that end at the same time in one round trip. Who knows that a task is
// done may acknowledge it before its handler returns. asynq does so afterwards, and is told that it is done:
//
//	handler     ------ waits ------------------ returns -> asynq -> asynqEnds: done already
//	sender      sends -> Client.Acknowledge ----^
//	Redis       <------- endScript, for all that end meanwhile
//
// A task that was acknowledged is in no list any more, so nobody will run it again. A sender needs to write nothing
// else down then, which saves a round trip for every message that has a task to itself.
type acknowledger struct {
	redis redis.UniversalClient

	mu     sync.Mutex
	known  map[string]known     // by the task's key: what may be acknowledged before its handler returns
	queues map[string]*ackQueue // by the key of the list of active tasks
}

// known is a task that asynq was given and that ends without a trace.
type known struct {
	id     string
	active string    // the key of the list that it is in
	until  time.Time // its lease is not over before
	ended  bool      // asynq does not know that yet
}

// ack is the end of a task. It is not to happen later than until, when its lease may be
// over: the task may be another worker's then.
type ack struct {
	id, key string
	until   time.Time
	done    chan error // has room for the one error
}

// ackQueue gathers what is to be acknowledged in a queue.
type ackQueue struct {
	redis  redis.UniversalClient
	prefix string // of the queue's keys
	batch  *batcher.Batcher[*ack]
}

func newAcknowledger(client redis.UniversalClient) *acknowledger {
	return &acknowledger{redis: client, known: map[string]known{}, queues: map[string]*ackQueue{}}
}

var errNotActive = errors.New("NOT FOUND") // as asynq's script has it

// ErrNotFetched is the error for a task that only asynq may acknowledge: it was not fetched here, its lease may be
// over, or asynq keeps something of it.
var ErrNotFetched = errors.New("asynqbatch: only asynq may acknowledge this task")

// leaseMargin is what is left of a lease when its task is acknowledged at the latest. asynq
// prolongs leases, which is not reckoned with here.
const leaseMargin = 10 * time.Second

// fetched notes that asynq is given a task.
func (a *acknowledger) fetched(t fetched) {
	lease, ok := t.lease.(int64)
	if !ok || !vanishes(t.message) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[t.key()] = known{id: t.id, active: t.keys[fetchActive], until: time.Unix(lease, 0).Add(-leaseMargin)}
}

// acknowledge is Client.Acknowledge.
func (a *acknowledger) acknowledge(keys []string) []error {
	acks := a.begin(keys)
	errs := make([]error, len(keys))
	for i, t := range acks {
		errs[i] = ErrNotFetched
		if t != nil {
			errs[i] = <-t.done
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, key := range keys {
		if g, ok := a.known[key]; ok && errs[i] == nil {
			g.ended = true
			a.known[key] = g
		}
	}
	return errs
}

// begin begins to acknowledge tasks. It returns nil for those that only asynq may acknowledge.
func (a *acknowledger) begin(keys []string) []*ack {
	acks := make([]*ack, len(keys))
	queues := make(map[string][]*ack, 1)
	now := time.Now()
	a.mu.Lock()
	for i, key := range keys {
		if g, ok := a.known[key]; ok && now.Before(g.until) {
			acks[i] = newAck(g.id, key, g.until)
			queues[g.active] = append(queues[g.active], acks[i])
		}
	}
	a.mu.Unlock()
	for active, these := range queues {
		a.queue(active).batch.Add(these...)
	}
	return acks
}

func (a *acknowledger) forget(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known[key].ended {
		delete(a.known, key)
	}
}

// The keys of asynq's script that ends a task, and its arguments.
const (
	endActive = iota
	endLease
	endTask
	endToday
	endProcessed
	endKeys

	endID   = 0
	endArgs = 3
)

// endsTask reports whether a script ends a task that nobody wants to see afterwards. The keys are
// active, lease, task, processed today and processed; the arguments are the ID, when
// today's number expires, and the greatest number.
func endsTask(keys []string, args []any) bool {
	return len(keys) == endKeys && len(args) == endArgs &&
		strings.HasSuffix(keys[endActive], "}:active") && strings.HasSuffix(keys[endProcessed], "}:processed")
}

// asynqEnds does what asynq's script does with these keys and arguments.
func (a *acknowledger) asynqEnds(ctx context.Context, keys []string, args []any) error {
	key := keys[endTask]
	a.mu.Lock()
	g := a.known[key]
	delete(a.known, key)
	a.mu.Unlock()
	if g.ended {
		return nil
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(leaseMargin)
	}
	id, _ := args[endID].(string)
	t := newAck(id, key, until)
	a.queue(keys[endActive]).batch.Add(t)
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newAck(id, key string, until time.Time) *ack {
	return &ack{id, key, until, make(chan error, 1)}
}

// queue is the queue with that list of active tasks.
func (a *acknowledger) queue(active string) *ackQueue {
	a.mu.Lock()
	defer a.mu.Unlock()
	q, ok := a.queues[active]
	if !ok {
		q = &ackQueue{redis: a.redis, prefix: strings.TrimSuffix(active, "active")}
		q.batch = batcher.New(q.endAll)
		a.queues[active] = q
	}
	return q
}

// endScript is what asynq does to end a task, for several: KEYS[5] and what follows, with the IDs
// ARGV[3] and what follows. It returns 1 for each that it has ended. A task that is
// about to end is among the oldest of the active ones, and those are last.
var endScript = redis.NewScript(`
local ended, n = {}, 0
for i = 5, #KEYS do
  local id, ok = ARGV[i - 2], 0
  if redis.call("LREM", KEYS[1], -1, id) == 1 and redis.call("ZREM", KEYS[2], id) == 1 and redis.call("DEL", KEYS[i]) == 1 then
    n, ok = n + 1, 1
  end
  ended[i - 4] = ok
end
if n == 0 then return ended end
if redis.call("INCRBY", KEYS[3], n) == n then redis.call("EXPIREAT", KEYS[3], ARGV[1]) end
if tonumber(redis.call("GET", KEYS[4]) or 0) + n >= tonumber(ARGV[2]) then
  redis.call("SET", KEYS[4], n)
else
  redis.call("INCRBY", KEYS[4], n)
end
return ended`)

// statsFor is how long asynq keeps the numbers of a day.
const statsFor = 90 * 24 * time.Hour

// endAll ends tasks of the queue, but those whose time is up.
func (q *ackQueue) endAll(acks []*ack) {
	now := time.Now()
	acks = slices.DeleteFunc(acks, func(t *ack) bool {
		late := !now.Before(t.until)
		if late {
			t.done <- context.DeadlineExceeded
		}
		return late
	})
	if len(acks) == 0 {
		return
	}
	first := slices.MinFunc(acks, func(a, b *ack) int { return a.until.Compare(b.until) })
	ctx, cancel := context.WithDeadline(context.Background(), first.until)
	defer cancel()
	keys := append(make([]string, 0, 4+len(acks)),
		q.prefix+"active", q.prefix+"lease", q.prefix+"processed:"+now.UTC().Format(time.DateOnly), q.prefix+"processed")
	args := append(make([]any, 0, 2+len(acks)), now.Add(statsFor).Unix(), int64(math.MaxInt64))
	for _, t := range acks {
		keys, args = append(keys, t.key), append(args, t.id)
	}
	ended, err := endScript.Run(ctx, q.redis, keys, args...).Int64Slice()
	for i, t := range acks {
		if err == nil && (i >= len(ended) || ended[i] != 1) {
			t.done <- errNotActive
		} else {
			t.done <- err
		}
	}
}

// The numbers of fields of asynq's protocol buffer of a task.
const (
	fieldUniqueKey = 10
	fieldRetention = 12
)

// vanishes reports whether asynq keeps nothing of a task that has ended: not the task itself for
// a while, nor a lock that has to go with it.
func vanishes(message string) bool {
	for len(message) > 0 {
		number, value, n := field(message)
		if n == 0 || value > 0 && (number == fieldUniqueKey || number == fieldRetention) {
			return false
		}
		message = message[n:]
	}
	return true
}

// uvarint is binary.Uvarint of a string, which is not copied. n is 0 if it does not begin with one.
func uvarint(s string) (value uint64, n int) {
	value, n = binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	return value, max(n, 0)
}
