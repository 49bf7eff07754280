package asynqbatch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/batcher"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Enqueuer is the Redis client for asynq's client of a program that queues tasks. Tasks of many goroutines go to Redis
// together, in one script for each queue, and that script also wakes a worker that waits for a task of the queue. What is in
// Redis is what asynq leaves. With a task its events may go, in the same script: see WithEvents.
type Enqueuer struct {
	redis.UniversalClient
	calls  Calls
	denied atomic.Bool
	queues sync.Map // of *batcher.Batcher[*enqueued], by name
}

// Calls is told which calls of EvalSha share a round trip, since somebody may follow each by its context.
type Calls interface {
	// Joint returns the context for a round trip of the calls with these contexts, which lasts as long as it takes. over is
	// called when it has ended, before any of the calls.
	Joint(calls []context.Context) (ctx context.Context, over func())

	// Dropped says that a call has ended whose task was not written to Redis.
	Dropped(call context.Context)
}

// NewEnqueuer returns an Enqueuer on the given Redis, which it does not close. calls may be nil.
func NewEnqueuer(client redis.UniversalClient, calls Calls) *Enqueuer {
	return &Enqueuer{UniversalClient: client, calls: calls}
}

// Denied reports whether Redis did not let a hint be published when a task was queued last: a right of the user is missing.
func (e *Enqueuer) Denied() bool { return e.denied.Load() }

// WithEvents returns a context for a call that queues a task: with it go the events that are given, as events.Append has them, of which so
// many bytes are kept.
func WithEvents(ctx context.Context, data []byte, kept events.Config) context.Context {
	return context.WithValue(ctx, extrasKey{}, extras{data, kept.Size, false})
}

// GoesOn returns a context for a call that queues a task of a message that a worker moves on. The task is left out, as if it were there and gone, if it
// was there before and has been taken back: wire.CancelledKey says so. It brings no events, for the message is queued already. But its queue knows
// from it that so many bytes of them are kept.
func GoesOn(ctx context.Context, kept events.Config) context.Context {
	return context.WithValue(ctx, extrasKey{}, extras{nil, kept.Size, true})
}

type extrasKey struct{}

// extras are what goes with a task.
type extras struct {
	events []byte
	kept   int64
	moves  bool
}

func (e extras) any() bool { return e.kept > 0 || e.moves }

// enqueued is a task on its way.
type enqueued struct {
	ctx         context.Context //nolint:containedctx // of the call, which waits
	id, message any
	extras      extras
	size        int
	now         int64        // in nanoseconds
	state       atomic.Int32 // taskWaits until it goes to Redis, or the call ends
	done        chan struct{}
	answer      byte
	err         error
}

const (
	taskWaits = iota
	taskGoes
	taskDropped
)

// The most that goes to Redis in a script, for it does nothing else meanwhile.
const (
	MostEnqueued  = 64      // tasks
	BytesEnqueued = 1 << 20 // of their messages and events, but for the last task's
)

// inOrder is how far apart the times of two tasks are, at least: a sorted set of Redis tells microseconds apart.
const inOrder = int64(time.Microsecond)

// luaEnqueue does what asynq's script does for the tasks of a queue: ARGV[4] and what follows are their IDs, each with the task and the
// time in nanoseconds. KEYS are the pending ones and wire.WaitingKey. ARGV[1] is what the keys of
// tasks begin with, ARGV[2] what the channels of workers do, and ARGV[3] the name of the queue. It answers a byte for each task: 1, or 0
// if its ID is there, and "d" if the hint may not be published. each is how many arguments a task has: with a fourth one, its events. If unless is
// set, a task is left out whose ID behind it is a key.
const luaEnqueue = `
local answer, ids = {}, {}
for i = 4, #ARGV - each + 1, each do
  local key = ARGV[1] .. ARGV[i]
  if redis.call("EXISTS", key) == 1 then
    answer[#answer + 1] = "0"
  elseif unless and redis.call("EXISTS", unless .. ARGV[i]) == 1 then
    answer[#answer + 1] = "1"
  else
    redis.call("HSET", key, "msg", ARGV[i + 1], "state", "pending", "pending_since", ARGV[i + 2])
    ids[#ids + 1], answer[#answer + 1] = ARGV[i], "1"
    if each > 3 then told[#told + 1] = ARGV[i + 3] end
  end
end
if #ids > 0 then
  redis.call("LPUSH", KEYS[1], unpack(ids))
  local waits = redis.call("GETDEL", KEYS[2])
  if waits then
    local heard = redis.pcall("PUBLISH", ARGV[2] .. waits, ARGV[3])
    if type(heard) == "table" then answer[#answer + 1] = "d" end
  end
end
`

// enqueueScript queues tasks. enqueueMoreScript does so, where each of them has events behind the time. Its last two arguments are unless, or "", and how
// many bytes of events are kept, and KEYS[3] is where.
var (
	enqueueScript     = redis.NewScript("local each, unless = 3" + luaEnqueue + "return table.concat(answer)")
	enqueueMoreScript = redis.NewScript(events.Lua + `
local each, told, unless = 4, {}, ARGV[#ARGV - 1]
if unless == "" then unless = nil end` + luaEnqueue + `
if #ids > 0 then eventsPut(KEYS[3], table.concat(told), ARGV[#ARGV]) end
return table.concat(answer)`)
)

// scheduleScript does what asynq's does that lets the task ARGV[1] with the ID ARGV[3] wait until ARGV[2], and writes its events
// ARGV[4], of which ARGV[5] bytes are kept. KEYS are the task's record, the scheduled tasks, the events, and unless of luaEnqueue, if the task has that.
var scheduleScript = redis.NewScript(events.Lua + `
if redis.call("EXISTS", KEYS[1]) == 1 then return 0 end
if KEYS[4] and redis.call("EXISTS", KEYS[4]) == 1 then return 1 end
redis.call("HSET", KEYS[1], "msg", ARGV[1], "state", "scheduled")
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[3])
eventsPut(KEYS[3], ARGV[4], ARGV[5])
return 1`)

// EvalSha implements redis.Scripter.
func (e *Enqueuer) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	more, _ := ctx.Value(extrasKey{}).(extras)
	switch {
	case enqueuesTask(keys, args):
	case more.any() && schedulesTask(keys, args):
		return e.schedule(ctx, more, keys, args)
	default:
		return e.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	data, _ := args[0].([]byte)
	now, _ := args[2].(int64)
	t := &enqueued{ctx: ctx, message: args[0], extras: more, size: len(data) + len(more.events), id: args[1], now: now, done: make(chan struct{})}
	queue := nameIn(keys[1])
	gathered, ok := e.queues.Load(queue)
	if !ok {
		gathered, _ = e.queues.LoadOrStore(queue, batcher.New(func(these []*enqueued) { e.enqueue(queue, these) }))
	}
	gathered.(*batcher.Batcher[*enqueued]).Add(t)
	select {
	case <-t.done:
	case <-ctx.Done():
		if t.state.CompareAndSwap(taskWaits, taskDropped) {
			e.dropped(ctx)
			return redis.NewCmdResult(nil, ctx.Err())
		}
		<-t.done
	}
	if t.err != nil {
		return redis.NewCmdResult(nil, t.err)
	}
	return redis.NewCmdResult(int64(t.answer-'0'), nil)
}

// schedule lets a task wait that has more than asynq's script knows of.
func (e *Enqueuer) schedule(ctx context.Context, more extras, keys []string, args []any) *redis.Cmd {
	queue := nameIn(keys[1])
	keys = append(keys, events.Key(queue))
	if more.moves {
		_, id := queueOf(keys[0])
		keys = append(keys, wire.CancelledKey(queue, id))
	}
	return scheduleScript.Run(ctx, e.UniversalClient, keys, append(args, more.events, more.kept)...)
}

func (e *Enqueuer) dropped(ctx context.Context) {
	if e.calls != nil {
		e.calls.Dropped(ctx)
	}
}

// enqueuesTask reports whether a script of asynq's puts a task into the list of pending ones. The arguments are the task, its
// ID and the time.
func enqueuesTask(keys []string, args []any) bool {
	return len(keys) == 2 && len(args) == 3 && strings.HasSuffix(keys[1], "}:pending") && strings.Contains(keys[0], "}:t:")
}

// schedulesTask reports whether a script of asynq's puts a task among the scheduled ones. The arguments are the task, the time and its ID.
func schedulesTask(keys []string, args []any) bool {
	return len(keys) == 2 && len(args) == 3 && strings.HasSuffix(keys[1], "}:scheduled") && strings.Contains(keys[0], "}:t:")
}

var errNotEnqueued = errors.New("asynqbatch: Redis has not answered as the script does that queues tasks")

// NewTask is a task that is to be queued together with others.
type NewTask struct {
	ID      string
	Message []byte // as Encode returns it
	Events  []byte // which go with it, as WithEvents says
}

// EnqueueAll queues tasks, which are to be taken now, as asynq's client with an Enqueuer would, but without a goroutine and a call for each: they are not
// more than MostEnqueued, and their messages and events have about BytesEnqueued. One whose ID is there already is left out. It does not add the queue to asynq's
// set of all.
func EnqueueAll(ctx context.Context, client redis.UniversalClient, queue string, tasks []NewTask, kept events.Config) error {
	s, now := gather(queue, len(tasks)), time.Now().UnixNano()
	for _, t := range tasks {
		e := extras{events: t.Events}
		if len(t.Events) > 0 {
			e.kept = kept.Size
		}
		s.add(t.ID, t.Message, now, e)
	}
	_, _, err := s.run(ctx, client)
	return err
}

// enqueue queues tasks, and ends their calls.
func (e *Enqueuer) enqueue(queue string, these []*enqueued) {
	these = slices.DeleteFunc(these, func(t *enqueued) bool { return !t.state.CompareAndSwap(taskWaits, taskGoes) })
	for len(these) > 0 {
		n, size := 0, 0
		for n < min(len(these), MostEnqueued) && size < BytesEnqueued {
			size += these[n].size
			n++
		}
		e.enqueueSome(queue, these[:n])
		these = these[n:]
	}
}

// enqueueSome queues tasks in one round trip.
func (e *Enqueuer) enqueueSome(queue string, these []*enqueued) {
	ctx, over := these[0].ctx, func() {}
	if len(these) > 1 {
		ctx = context.WithoutCancel(ctx)
		if e.calls != nil {
			calls := make([]context.Context, len(these))
			for i, t := range these {
				calls[i] = t.ctx
			}
			ctx, over = e.calls.Joint(calls)
		}
	}
	s := gather(queue, len(these))
	for _, t := range these {
		s.add(t.id, t.message, t.now, t.extras)
	}
	answer, denied, err := s.run(ctx, e.UniversalClient)
	over()
	if err == nil && strings.Contains(answer, "1") {
		e.denied.Store(denied)
	}
	for i, t := range these {
		if t.err = err; err == nil {
			t.answer = answer[i]
		}
		close(t.done)
	}
}

// newTasks are tasks that go to a queue in one script.
type newTasks struct {
	queue  string
	args   []any    // an ID, a task and a time for each
	events [][]byte // of each
	more   bool     // enqueueMoreScript is needed
	kept   int64
	unless string
	since  int64 // the time of the last one
}

// gather returns what is to have n tasks.
func gather(queue string, n int) *newTasks {
	return &newTasks{queue: queue, args: make([]any, 0, 3*n), events: make([][]byte, 0, n)}
}

// add adds a task. now is in nanoseconds.
func (s *newTasks) add(id, message any, now int64, e extras) {
	s.since = max(s.since+inOrder, now) // the time alone says in which order they came
	s.args, s.events = append(s.args, id, message, s.since), append(s.events, e.events)
	s.more, s.kept = s.more || e.any(), max(s.kept, e.kept)
	if e.moves {
		s.unless = wire.CancelledKey(s.queue, "")
	}
}

// run queues the tasks. answer has a byte for each: 1, or 0 if its ID is there. denied says that the hint may not be published.
func (s *newTasks) run(ctx context.Context, client redis.UniversalClient) (answer string, denied bool, err error) {
	keys, script := []string{pendingKey(s.queue), wire.WaitingKey(s.queue)}, enqueueScript
	args := append(make([]any, 0, 5+4*len(s.events)), TaskKey(s.queue, ""), wire.WakeChannelOf(""), s.queue)
	if s.more {
		keys, script = append(keys, events.Key(s.queue)), enqueueMoreScript
		for i, e := range s.events {
			args = append(append(args, s.args[3*i:3*i+3]...), e)
		}
		args = append(args, s.unless, s.kept)
	} else {
		args = append(args, s.args...)
	}
	answer, err = script.Run(ctx, client, keys, args...).Text()
	answer, denied = strings.CutSuffix(answer, "d")
	if err == nil && len(answer) != len(s.events) {
		err = errNotEnqueued
	}
	return answer, denied, err
}
