package tasks

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
)

// endings ends tasks, those that end at the same time in one round trip. A sender whose
// message was accepted ends its task itself, and asynq is told that it has ended when
// it wants to do so. A task that has ended is in no list any more, so nobody will send its
// message again, and the ledger needs no entry for it: that saves a round trip for every
// message that has a task to itself.
type endings struct {
	redis redis.UniversalClient

	mu     sync.Mutex
	given  map[string]given      // by the task's key: what a sender may end
	queues map[string]*endsQueue // by the key of the list of active tasks
}

// given is a task that asynq was given and that ends without a trace.
type given struct {
	id     string
	active string    // the key of the list that it is in
	until  time.Time // its lease is not over before
	ended  bool      // asynq does not know that yet
}

// ending is the end of a task. It is not to happen later than until, when its lease may be
// over: the task may be another worker's then.
type ending struct {
	id, key string
	until   time.Time
	done    chan error // has room for the one error
}

// endsQueue gathers what is to be ended in a queue.
type endsQueue struct {
	redis  redis.UniversalClient
	prefix string // of the queue's keys
	trips  *trips[*ending]
}

func newEndings(client redis.UniversalClient) *endings {
	return &endings{redis: client, given: map[string]given{}, queues: map[string]*endsQueue{}}
}

var (
	errNotActive = errors.New("NOT FOUND") // as asynq's script has it
	errNotGiven  = errors.New("tasks: not a task that a sender may end")
)

// leaseMargin is what is left of a lease when a sender ends its task at the latest. asynq
// prolongs leases, which is not reckoned with here.
const leaseMargin = 10 * time.Second

// give notes that asynq is given a task.
func (e *endings) give(t taken) {
	lease, ok := t.lease.(int64)
	if !ok || !vanishes(t.message) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.given[t.key()] = given{id: t.id, active: t.keys[takeActive], until: time.Unix(lease, 0).Add(-leaseMargin)}
}

// end ends tasks of accepted messages for their sender, and returns an error for each. After any
// other one than errNotGiven a task may have ended all the same.
func (e *endings) end(keys []string) []error {
	some := e.begin(keys)
	errs := make([]error, len(keys))
	for i, t := range some {
		errs[i] = errNotGiven
		if t != nil {
			errs[i] = <-t.done
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, key := range keys {
		if g, ok := e.given[key]; ok && errs[i] == nil {
			g.ended = true
			e.given[key] = g
		}
	}
	return errs
}

// begin begins to end tasks. It returns nil for those that a sender may not end.
func (e *endings) begin(keys []string) []*ending {
	some := make([]*ending, len(keys))
	queues := make(map[string][]*ending, 1)
	now := time.Now()
	e.mu.Lock()
	for i, key := range keys {
		if g, ok := e.given[key]; ok && now.Before(g.until) {
			some[i] = newEnding(g.id, key, g.until)
			queues[g.active] = append(queues[g.active], some[i])
		}
	}
	e.mu.Unlock()
	for active, these := range queues {
		e.queue(active).trips.add(these...)
	}
	return some
}

// forget forgets a task that no sender will end any more.
func (e *endings) forget(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.given[key].ended {
		delete(e.given, key)
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

// endsTask says whether a script ends a task that nobody wants to see afterwards. The keys are
// active, lease, task, processed today and processed; the arguments are the ID, when
// today's number expires, and the greatest number.
func endsTask(keys []string, args []any) bool {
	return len(keys) == endKeys && len(args) == endArgs &&
		strings.HasSuffix(keys[endActive], "}:active") && strings.HasSuffix(keys[endProcessed], "}:processed")
}

// asynqEnds does what asynq's script does with these keys and arguments.
func (e *endings) asynqEnds(ctx context.Context, keys []string, args []any) error {
	key := keys[endTask]
	e.mu.Lock()
	g := e.given[key]
	delete(e.given, key)
	e.mu.Unlock()
	if g.ended {
		return nil
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(leaseMargin)
	}
	id, _ := args[endID].(string)
	t := newEnding(id, key, until)
	e.queue(keys[endActive]).trips.add(t)
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newEnding(id, key string, until time.Time) *ending {
	return &ending{id, key, until, make(chan error, 1)}
}

// queue is the queue with that list of active tasks.
func (e *endings) queue(active string) *endsQueue {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, ok := e.queues[active]
	if !ok {
		q = &endsQueue{redis: e.redis, prefix: strings.TrimSuffix(active, "active")}
		q.trips = newTrips(q.endAll)
		e.queues[active] = q
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
func (q *endsQueue) endAll(some []*ending) {
	now := time.Now()
	some = slices.DeleteFunc(some, func(t *ending) bool {
		late := !now.Before(t.until)
		if late {
			t.done <- context.DeadlineExceeded
		}
		return late
	})
	if len(some) == 0 {
		return
	}
	first := slices.MinFunc(some, func(a, b *ending) int { return a.until.Compare(b.until) })
	ctx, cancel := context.WithDeadline(context.Background(), first.until)
	defer cancel()
	keys := append(make([]string, 0, 4+len(some)),
		q.prefix+"active", q.prefix+"lease", q.prefix+"processed:"+now.UTC().Format(time.DateOnly), q.prefix+"processed")
	args := append(make([]any, 0, 2+len(some)), now.Add(statsFor).Unix(), int64(math.MaxInt64))
	for _, t := range some {
		keys, args = append(keys, t.key), append(args, t.id)
	}
	ended, err := endScript.Run(ctx, q.redis, keys, args...).Int64Slice()
	for i, t := range some {
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

// vanishes says whether asynq keeps nothing of a task that has ended: not the task itself for
// a while, nor a lock that has to go with it.
func vanishes(message string) bool {
	for len(message) > 0 {
		tag, n := uvarint(message)
		value, m := uvarint(message[n:])
		if n == 0 || m == 0 {
			return false
		}
		if number := tag >> 3; value > 0 && (number == fieldUniqueKey || number == fieldRetention) {
			return false
		}
		message = message[n+m:]
		switch kind := tag & 7; {
		case kind == 0: // a number
		case kind == 2 && value <= uint64(len(message)): // as many octets
			message = message[value:]
		default:
			return false
		}
	}
	return true
}

// uvarint is binary.Uvarint of a string, which is not copied. n is 0 if it does not begin with one.
func uvarint(s string) (value uint64, n int) {
	value, n = binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	return value, max(n, 0)
}
