package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// endings ends tasks for asynq, those that end at the same time in one round trip, and lets
// a sender know when that is done. A task that has ended is in no list any more, so
// nobody will send its message again, and the ledger needs no entry for it: that saves a
// round trip for every message that has a task to itself.
type endings struct {
	redis redis.UniversalClient

	mu      sync.Mutex
	waiting map[string]chan<- error    // by the task's key; each has room for the one error
	queues  map[string]*trips[*ending] // by the key of the list of active tasks
}

// ending is the end of a task, with the keys and the arguments of asynq's script. It is not to
// happen after ctx has ended, with the task's lease: the task may be another worker's then.
type ending struct {
	ctx  context.Context //nolint:containedctx // several share a call
	keys []string
	args []any
	done chan error // has room for the one error
}

func newEndings(client redis.UniversalClient) *endings {
	return &endings{redis: client, waiting: map[string]chan<- error{}, queues: map[string]*trips[*ending]{}}
}

// endPatience is how long a sender waits for asynq to end a task, before it writes the
// entry after all. While Redis answers that takes a fraction of it.
const endPatience = 50 * time.Millisecond

// expect announces the end of a task. ended gets nil when it is in Redis, else the error;
// it must have room for that.
func (e *endings) expect(key string, ended chan<- error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting[key] = ended
}

// forget takes expect back.
func (e *endings) forget(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, key)
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

// end does what asynq's script does with these keys and arguments.
func (e *endings) end(ctx context.Context, keys []string, args []any) error {
	mine := &ending{ctx, keys, args, make(chan error, 1)}
	e.queue(keys[endActive]).add(mine)
	select {
	case err := <-mine.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queue gathers what is to be ended in the queue with that list of active tasks.
func (e *endings) queue(active string) *trips[*ending] {
	e.mu.Lock()
	defer e.mu.Unlock()
	q, ok := e.queues[active]
	if !ok {
		q = newTrips(e.endAll)
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

var errNotActive = errors.New("NOT FOUND") // as asynq's script has it

// endAll ends tasks of one queue, but those whose time is up.
func (e *endings) endAll(some []*ending) {
	some = slices.DeleteFunc(some, func(t *ending) bool {
		err := t.ctx.Err()
		if err != nil {
			e.tell(t, err)
		}
		return err != nil
	})
	if len(some) == 0 {
		return
	}
	ctx, cancel := untilFirst(some)
	defer cancel()
	first := some[0]
	keys := append(make([]string, 0, 4+len(some)), first.keys[endActive], first.keys[endLease], first.keys[endToday], first.keys[endProcessed])
	args := append(make([]any, 0, 2+len(some)), first.args[endID+1:]...)
	for _, t := range some {
		keys, args = append(keys, t.keys[endTask]), append(args, t.args[endID])
	}
	ended, err := endScript.Run(ctx, e.redis, keys, args...).Int64Slice()
	for i, t := range some {
		if err == nil && (i >= len(ended) || ended[i] != 1) {
			e.tell(t, errNotActive)
		} else {
			e.tell(t, err)
		}
	}
}

// untilFirst ends when the time of the first of them is up.
func untilFirst(some []*ending) (context.Context, context.CancelFunc) {
	first := some[0].ctx
	for _, t := range some[1:] {
		if d, ok := t.ctx.Deadline(); ok {
			if f, limited := first.Deadline(); !limited || d.Before(f) {
				first = t.ctx
			}
		}
	}
	deadline, ok := first.Deadline()
	if !ok {
		return context.WithCancel(context.Background())
	}
	return context.WithDeadline(context.Background(), deadline)
}

// tell tells asynq, and the sender if it waits, how the end of a task has come back.
func (e *endings) tell(t *ending, err error) {
	e.mu.Lock()
	if ended, ok := e.waiting[t.keys[endTask]]; ok {
		delete(e.waiting, t.keys[endTask])
		ended <- err
	}
	e.mu.Unlock()
	t.done <- err
}
