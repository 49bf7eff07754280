package tasks

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// asynq takes one task at a time from Redis, a round trip for each. A taker takes as many as its
// server has places for, and gives them to asynq as it asks. They are active from then
// on, with the lease that asynq would have given them.
type taker struct {
	redis  redis.UniversalClient
	places *places
	eager  func() bool // an empty list is asked again soon

	mu    sync.Mutex
	shelf map[string][]taken   // by the key of the list that they waited in
	empty map[string]time.Time // since when a list has had nothing, by its key
}

// taken is a task that asynq has not asked for yet.
type taken struct {
	id, message string
	lost        int // leases that it has lost
	at          time.Time
	keys        []string // of the script that took it
	lease       any      // its end
	prefix      any      // of the keys of tasks
}

// key is where asynq keeps the task.
func (t taken) key() string {
	prefix, _ := t.prefix.(string)
	return prefix + t.id
}

const (
	// emptyFor is how long a list that was empty is taken for empty by an eager taker. asynq asks one queue after
	// the other, in an order that chance and the weights decide anew for each task: while one of
	// three is full, the empty ones would cost a script for nearly every task.
	emptyFor = time.Millisecond

	// shelfLife is how long a task waits for asynq at most, a small part of its lease. It waits
	// as long as it takes asynq to end another one: that is long only if Redis is away.
	shelfLife = time.Second
)

func newTaker(client redis.UniversalClient, places *places, eager func() bool) *taker {
	return &taker{redis: client, places: places, eager: eager, shelf: map[string][]taken{}, empty: map[string]time.Time{}}
}

// The keys of asynq's script that takes a task.
const (
	takePending = iota
	takePaused
	takeActive
	takeLease
	takesKeys
)

// takesTask says whether a script takes the next task of a queue. The keys are pending,
// paused, active and lease; the arguments are the end of the lease, and what the
// keys of tasks begin with.
func takesTask(keys []string, args []any) bool {
	return len(keys) == takesKeys && len(args) == 2 &&
		strings.HasSuffix(keys[takePending], "}:pending") && strings.HasSuffix(keys[takePaused], "}:paused")
}

// takeScript is what asynq does to take a task, for up to ARGV[3] of them. It returns their IDs, each
// followed by the task, and by how many leases it has lost.
var takeScript = redis.NewScript(`
local tasks = {}
if redis.call("EXISTS", KEYS[2]) == 1 then return tasks end
for _ = 1, tonumber(ARGV[3]) do
  local id = redis.call("RPOPLPUSH", KEYS[1], KEYS[3])
  if not id then break end
  local key = ARGV[2] .. id
  redis.call("HSET", key, "state", "active")
  redis.call("HDEL", key, "pending_since")
  redis.call("ZADD", KEYS[4], ARGV[1], id)
  local message, lost = unpack(redis.call("HMGET", key, "msg", "` + wire.FieldLost + `"))
  if message then
    tasks[#tasks + 1] = id
    tasks[#tasks + 1] = message
    tasks[#tasks + 1] = lost or "0"
  end
end
return tasks`)

// take does what asynq's script does with these keys and arguments: it returns the next task of
// a queue, or redis.Nil.
func (t *taker) take(ctx context.Context, keys []string, lease, prefix any) (taken, error) {
	list := keys[takePending]
	next, stale, ok := t.pop(list)
	t.giveBack(ctx, stale)
	if ok {
		t.places.give()
		return next, nil
	}
	if !t.asks(list) {
		return taken{}, redis.Nil
	}
	n := t.places.wait()
	answer, err := takeScript.Run(ctx, t.redis, keys, lease, prefix, n).StringSlice()
	if err != nil {
		<-time.After(checkInterval) // asynq asks again at once
		return taken{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(answer) < takenFields*n {
		t.empty[list] = time.Now()
	}
	if len(answer) == 0 {
		return taken{}, redis.Nil
	}
	now := time.Now()
	var first taken
	for i := 0; i+takenFields <= len(answer); i += takenFields {
		lost, _ := strconv.Atoi(answer[i+2])
		next := taken{id: answer[i], message: answer[i+1], lost: lost, at: now, keys: keys, lease: lease, prefix: prefix}
		if i == 0 {
			first = next
			continue
		}
		t.shelf[list] = append(t.shelf[list], next)
	}
	t.places.give()
	return first, nil
}

// takenFields is what takeScript returns of each task.
const takenFields = 3

// pop returns what has been taken from a list already, and what has waited too long to be begun.
func (t *taker) pop(list string) (next taken, stale []taken, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tasks := t.shelf[list]
	for len(tasks) > 0 && time.Since(tasks[0].at) > shelfLife {
		stale, tasks = append(stale, tasks[0]), tasks[1:]
	}
	if ok = len(tasks) > 0; ok {
		next, tasks = tasks[0], tasks[1:]
	}
	if len(tasks) == 0 {
		delete(t.shelf, list)
	} else {
		t.shelf[list] = tasks
	}
	return next, stale, ok
}

// asks says whether Redis is to be asked for a list: not if it was empty a moment ago, nor while
// the places are promised to tasks of other lists.
func (t *taker) asks(list string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pause := checkInterval
	if t.eager() {
		pause = emptyFor
	}
	since, ok := t.empty[list]
	return len(t.shelf) == 0 && (!ok || time.Since(since) >= pause)
}

// giveBackScript puts a task back to where it was taken from, if its lease is still the one that
// it got then.
var giveBackScript = redis.NewScript(`
local lease = redis.call("ZSCORE", KEYS[4], ARGV[3])
if not lease or tonumber(lease) ~= tonumber(ARGV[1]) then return 0 end
redis.call("LREM", KEYS[3], -1, ARGV[3])
redis.call("ZREM", KEYS[4], ARGV[3])
redis.call("RPUSH", KEYS[1], ARGV[3])
redis.call("HSET", ARGV[2] .. ARGV[3], "state", "pending")
return 1`)

// giveBack gives tasks back that nobody has begun. Those that Redis does not hear of come back
// when their leases are over.
func (t *taker) giveBack(ctx context.Context, tasks []taken) {
	for i := len(tasks) - 1; i >= 0; i-- { // the first one is to be the next one again
		k := tasks[i]
		if giveBackScript.Run(ctx, t.redis, k.keys, k.lease, k.prefix, k.id).Err() != nil {
			return
		}
	}
}

// close gives back what asynq has not asked for. It asks for nothing any more.
func (t *taker) close(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tasks := range t.shelf {
		t.giveBack(ctx, tasks)
	}
	clear(t.shelf)
}
