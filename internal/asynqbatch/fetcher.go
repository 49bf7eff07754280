package asynqbatch

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// fetcher fetches tasks for one server: as many in a round trip as the server has free slots, and gives
// them to asynq one by one as it asks. They are active from then on, with the lease that asynq would have
// given them.
//
//	asynq asks:     A1              A2     A3     B1
//	Redis is asked: A1 A2 A3        -      -      B1 B2 ...
//	prefetched:     A2 A3           A3     -      B2 ...
type fetcher struct {
	base  *base
	slots *slots
	eager func() bool // an empty list is asked again soon
	limit func(all int) int

	queues   []string      // that the server serves; none: it never waits for tasks
	interval time.Duration // how long it waits until it looks again, on average
	hints    chan string   // wakes it: a queue that has got a task
	stopped  chan struct{} // closed when it is to wait no more
	stop     sync.Once

	asking sync.Mutex // Redis for tasks

	mu         sync.Mutex
	waits      bool                 // for a hint
	none       bool                 // the server may have no more tasks for now
	hinted     int                  // how many hints there were
	prefetched map[string][]fetched // what asynq has not asked for yet, by the key of the list it waited in
	empty      map[string]time.Time // since when a list has had nothing, by its key
}

// fetched is a task that has been fetched.
type fetched struct {
	key, message string
	lost         int // leases that it has lost
	at           time.Time
}

const (
	// emptyFor is how long a list that was empty is taken for empty by an eager fetcher. asynq asks one queue after
	// the other, in an order that chance and the weights decide anew for each task: while one of
	// three is full, the empty ones would cost a script for nearly every task.
	emptyFor = time.Millisecond
)

func newFetcher(b *base, slots *slots, eager func() bool) *fetcher {
	return &fetcher{
		base: b, slots: slots, eager: eager, limit: func(all int) int { return all },
		interval: CheckInterval, hints: make(chan string, 1), stopped: make(chan struct{}),
		prefetched: map[string][]fetched{}, empty: map[string]time.Time{},
	}
}

// The keys of asynq's script that fetches a task.
const (
	fetchPending = iota
	fetchPaused
	fetchActive
	fetchLease
	fetchKeys
)

// fetchesTask reports whether a script fetches the next task of a queue. The arguments are the end of the lease by
// this machine's clock, which is not used, and what the keys of tasks begin with.
func fetchesTask(keys []string, args []any) bool {
	return len(keys) == fetchKeys && len(args) == 2 &&
		strings.HasSuffix(keys[fetchPending], "}:pending") && strings.HasSuffix(keys[fetchPaused], "}:paused")
}

// fetchScript is what asynq does to fetch a task, for up to ARGV[3] of them, with a lease of ARGV[1] seconds by the clock
// of Redis, and the owner ARGV[6] in the field ARGV[5]. It returns their IDs, each followed by the task, by the
// number in its field ARGV[4], by since when it was pending, and by "1" if it has one of the fields ARGV[8] and what follows.
// Tasks of a mailing that is paused, by KEYS[5], it sets aside. The lists and the leases are written once for all of them. When
// there are no more it notes in KEYS[6] that the worker ARGV[7] waits, unless another one does: what is written once a minute burdens
// no append-only file.
var fetchScript = redis.NewScript(luaAside + `
local call, tasks, pauses = redis.call, {}, false
local asides, bytes = 0, 0
-- Sets a task aside if its mailing is paused. "stop": it is to stay where it is, while those that were set aside before it come
-- back. "more": it was set aside, and there may be very many, each of up to a megabyte.
local function setAside(id, key, message, since)
  local mailing, state = mailingState(KEYS[5], message)
  if state == "` + wire.MailingBack + `" then return "stop" end
  if state ~= "` + wire.MailingPaused + `" then return false end
  putAside(string.sub(KEYS[1], 1, -8), KEYS[5], mailing, id, key, since)
  asides, bytes = asides + 1, bytes + #message
  if asides >= 500 or bytes > 4000000 then return "more" end
  return true
end
if call("EXISTS", KEYS[2], KEYS[5]) > 0 then
  if call("EXISTS", KEYS[2]) == 1 then return tasks end
  pauses = true
end
local lease, left, aside = nil, tonumber(ARGV[3])
repeat
  local ids, active, leases, taken = call("LRANGE", KEYS[1], -left, -1), {}, {}, 0
  local more = #ids == left
  for i = #ids, 1, -1 do
    local id = ids[i]
    local key = ARGV[2] .. id
    local fields = call("HMGET", key, "msg", ARGV[4], "pending_since", unpack(ARGV, 8))
    local message = fields[1]
    aside = pauses and message and setAside(id, key, message, fields[3])
    if aside == "stop" then break end
    taken = taken + 1
    if message and not aside then -- else nothing is left of it but its name
      call("HSET", key, "state", "active", ARGV[5], ARGV[6])
      call("HDEL", key, "pending_since")
      lease = lease or call("TIME")[1] + ARGV[1]
      active[#active + 1] = id
      leases[#leases + 1] = lease
      leases[#leases + 1] = id
      local known = "0"
      for j = 4, #ARGV - 4 do if fields[j] then known = "1" end end
      local n = #tasks
      tasks[n + 1], tasks[n + 2], tasks[n + 3], tasks[n + 4], tasks[n + 5] = id, message, fields[2] or "0", fields[3] or "", known
    end
    if aside == "more" then break end
  end
  if taken > 0 then call("LTRIM", KEYS[1], 0, -taken - 1) end
  if #active > 0 then
    call("LPUSH", KEYS[3], unpack(active))
    call("ZADD", KEYS[4], unpack(leases))
  end
  left = left - #active
until left == 0 or not more or aside == "stop" or aside == "more"
if aside == "more" then
  tasks[#tasks + 1] = "more"
elseif left > 0 and not aside and ARGV[7] ~= "" then
  call("SET", KEYS[6], ARGV[7], "NX", "EX", 60)
end
return tasks`)

// fetch does what asynq's script does with these keys: it returns the next task of a queue, or redis.Nil. prefix is
// what the keys of tasks begin with. When no queue of the server has a task it waits for one, of any of them: asynq takes
// what it is given.
func (f *fetcher) fetch(ctx context.Context, keys []string, prefix any) (fetched, error) {
	next, err := f.take(ctx, keys, prefix)
	if !errors.Is(err, redis.Nil) {
		return next, err
	}
	if queue := f.wait(); queue != "" {
		return f.take(ctx, fetchKeysOf(queue), TaskKey(queue, ""))
	}
	return fetched{}, redis.Nil
}

// take returns the next task of a queue, or redis.Nil.
func (f *fetcher) take(ctx context.Context, keys []string, prefix any) (fetched, error) {
	f.asking.Lock()
	defer f.asking.Unlock()
	list := keys[fetchPending]
	most := f.limit(f.slots.all)
	f.full(most == 0)
	if most == 0 {
		f.close(ctx)
		return fetched{}, redis.Nil
	}
	next, stale, ok := f.pop(list)
	f.giveBack(ctx, stale)
	if ok {
		f.slots.give()
		return next, nil
	}
	if !f.asks(list) || f.asleep(nameIn(list)) {
		return fetched{}, redis.Nil
	}
	f.slots.allow(most)
	n, owner := f.slots.wait(), crand.Text()
	if n == 0 {
		f.full(true)
		return fetched{}, redis.Nil
	}
	hinted := f.hintsSoFar()
	asked, answer, err := f.ask(ctx, keys, prefix, n, owner)
	if err != nil {
		<-time.After(CheckInterval) // asynq asks again at once
		return fetched{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(answer) < fetchedFields*min(n, mostFetched) && len(answer)%fetchedFields == 0 && hinted == f.hinted {
		f.empty[list] = time.Now()
	}
	if len(answer) == 0 {
		return fetched{}, redis.Nil
	}
	now, before := time.Now(), fmt.Sprint(prefix)
	var first fetched
	for i := 0; i+fetchedFields <= len(answer); i += fetchedFields {
		lost, _ := strconv.Atoi(answer[i+2])
		next := fetched{key: before + answer[i], message: answer[i+1], lost: lost, at: now}
		f.base.claims.fetched(next.key, claim{owner: owner, ends: vanishes(next.message), since: answer[i+3], fresh: answer[i+4] == "0"}, asked)
		if i == 0 {
			first = next
			continue
		}
		f.prefetched[list] = append(f.prefetched[list], next)
	}
	f.slots.give()
	return first, nil
}

// next returns the next task of a list that has been fetched already, if that is all there is to do.
func (f *fetcher) next(list string) (next fetched, ok bool) {
	if !f.asking.TryLock() {
		return fetched{}, false
	}
	defer f.asking.Unlock()
	if f.limit(f.slots.all) == 0 {
		return fetched{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	tasks := f.prefetched[list]
	if len(tasks) == 0 || time.Since(tasks[0].at) > prefetchedFor {
		return fetched{}, false
	}
	f.prefetched[list] = tasks[1:]
	if len(tasks) == 1 {
		delete(f.prefetched, list)
	}
	f.slots.give()
	return tasks[0], true
}

// ask fetches up to n tasks of a queue. It goes on while there are only such as are set aside.
func (f *fetcher) ask(ctx context.Context, keys []string, prefix any, n int, owner string) (asked time.Duration, answer []string, err error) {
	queue, waiter := nameIn(keys[fetchPending]), ""
	if f.base.cfg.Waiter != nil {
		waiter = f.base.cfg.Waiter()
	}
	keys = append(slices.Clip(keys), wire.PausesKey(queue), wire.WaitingKey(queue))
	args := make([]any, 0, 7+len(f.base.cfg.TouchedFields))
	args = append(args, int(leaseTime/time.Second), prefix, min(n, mostFetched), f.base.cfg.LostField, f.base.cfg.OwnerField, owner, waiter)
	for _, field := range f.base.cfg.TouchedFields {
		args = append(args, field)
	}
	for {
		asked = f.base.claims.clock()
		answer, err = fetchScript.Run(ctx, f.base.redis, keys, args...).StringSlice()
		if err != nil || len(answer) != 1 {
			return asked, answer, err
		}
	}
}

// fetchedFields is what fetchScript returns of each task.
const fetchedFields = 5

// mostFetched is how many tasks one script fetches, at most: Lua has room for some thousands of arguments.
const mostFetched = 1000

// pop returns what has been fetched from a list already, and what has waited for asynq for too long.
func (f *fetcher) pop(list string) (next fetched, stale []fetched, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tasks := f.prefetched[list]
	for len(tasks) > 0 && time.Since(tasks[0].at) > prefetchedFor {
		stale, tasks = append(stale, tasks[0]), tasks[1:]
	}
	if ok = len(tasks) > 0; ok {
		next, tasks = tasks[0], tasks[1:]
	}
	if len(tasks) == 0 {
		delete(f.prefetched, list)
	} else {
		f.prefetched[list] = tasks
	}
	return next, stale, ok
}

// asks reports whether Redis is to be asked for a list: not if it was empty a moment ago, nor while
// the slots are promised to tasks of other lists.
func (f *fetcher) asks(list string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause := CheckInterval
	if f.eager() {
		pause = emptyFor
	}
	since, ok := f.empty[list]
	return len(f.prefetched) == 0 && (!ok || time.Since(since) >= pause)
}

// waiting is how many tasks have been fetched that asynq has not asked for.
func (f *fetcher) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, tasks := range f.prefetched {
		n += len(tasks)
	}
	return n
}

// takeAll takes what asynq has not asked for and returns the keys of it, when Redis is not being asked for more.
func (f *fetcher) takeAll() (keys []string) {
	f.asking.Lock()
	defer f.asking.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, tasks := range f.prefetched {
		for _, t := range tasks {
			keys = append(keys, t.key)
		}
	}
	clear(f.prefetched)
	return keys
}

// close gives back what asynq has not asked for. It asks for nothing any more.
func (f *fetcher) close(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, tasks := range f.prefetched {
		f.giveBack(ctx, tasks)
	}
	clear(f.prefetched)
}

// giveBack gives tasks back that asynq was not given. Those that Redis does not hear of come back when their leases
// are over.
func (f *fetcher) giveBack(ctx context.Context, tasks []fetched) {
	if len(tasks) == 0 {
		return
	}
	keys := make([]string, len(tasks))
	for i, t := range tasks {
		keys[i] = t.key
	}
	_ = f.base.giveBack(ctx, keys, f.base.claims.drop)
}

// asynq asks its queues one after the other, and pauses when none has a task. That pause cannot be cut short, so the one
// that counts is made here: the fetcher keeps asynq waiting for its answer, until a hint says that a queue has got
// a task, or it is time to look again.
//
//	asynq asks:     A        B        C ............ (task of B)
//	Redis is asked: A: none  B: none  C: none     B: a task
//	                                       hint: B
//
// A hint names a worker that waits: see wire.WaitingKey. So one process wakes for a task, however many there are.

// roundPause is how long asynq pauses between two rounds through its queues, on average.
const roundPause = time.Millisecond

// hint says that a queue has got a task, and reports whether the fetcher was waiting for one. If not it asks for tasks
// of that queue when it asks for any.
func (f *fetcher) hint(queue string) (waits bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.empty, pendingKey(queue))
	f.hinted++
	if waits, f.waits = f.waits, false; waits {
		select {
		case f.hints <- queue:
		default:
		}
	}
	return waits
}

func (f *fetcher) hintsSoFar() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hinted
}

// full notes whether the server may have no more tasks for now.
func (f *fetcher) full(none bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.none = none
}

// wait waits for a task if there is none for the server, and returns the queue of which a hint says that it has one. After
// a while it returns "", and then all queues are to be looked at.
func (f *fetcher) wait() (queue string) {
	f.mu.Lock()
	f.waits = f.idle()
	waits := f.waits
	f.mu.Unlock()
	if !waits {
		return ""
	}
	pause := f.interval
	if !f.eager() {
		pause = max(pause, CheckInterval)
	}
	timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // so that servers do not ask in step
	defer timer.Stop()
	select {
	case queue = <-f.hints:
	case <-timer.C:
	case <-f.stopped:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits = false
	if queue == "" {
		clear(f.empty)
	}
	return queue
}

// idle reports whether there is nothing to ask Redis for. f.mu is held.
func (f *fetcher) idle() bool {
	if len(f.queues) == 0 || len(f.prefetched) > 0 {
		return false
	}
	return f.none || !slices.ContainsFunc(f.queues, func(queue string) bool {
		_, empty := f.empty[pendingKey(queue)]
		return !empty && !f.asleep(queue)
	})
}

// asleep reports whether somebody knows that a queue has no tasks.
func (f *fetcher) asleep(queue string) bool {
	return f.base.cfg.Asleep != nil && f.base.cfg.Asleep(queue)
}

// waitNoMore ends a wait that is under way, and all others at once.
func (f *fetcher) waitNoMore() {
	f.stop.Do(func() {
		close(f.stopped)
		f.base.wakers.remove(f, f.queues)
	})
}

func pendingKey(queue string) string { return "asynq:{" + queue + "}:pending" }

// fetchKeysOf are the keys of asynq's script that fetches a task.
func fetchKeysOf(queue string) []string {
	prefix := "asynq:{" + queue + "}:"
	return []string{fetchPending: prefix + "pending", fetchPaused: prefix + "paused", fetchActive: prefix + "active", fetchLease: prefix + "lease"}
}
