package asynqbatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// The scripts with which asynq moves a task that is active. Ours do the same to the same keys, if the task is still this
// process's, and the times that they write are by the clock of Redis.
//
//	asynq's            keys                                                     arguments
//	done               active lease task processed:day processed [unique]       id stats-until max
//	complete           active lease completed task processed:day processed      id stats-until until msg max
//	                     [unique]
//	requeue            active lease pending task                                id
//	retry              task active lease retry processed:day failed:day         id msg at stats-until failure max
//	                     processed failed
//	archive            as retry, with archived, and the prefix of tasks         id msg at cutoff most stats-until max
//	list of leases     lease                                                    cutoff prefix
//	forward            scheduled or retry, pending                              now prefix now-nanoseconds groups
type move int

const (
	noMove move = iota
	moveFetch
	moveDone
	moveDoneUnique
	moveComplete
	moveRequeue
	moveRetry
	moveArchive
	moveListLeases
	moveForward
)

// moveOf is which of asynq's scripts has these keys and arguments.
func moveOf(keys []string, args []any) move {
	has := func(n, arguments int, at ...string) bool {
		if len(keys) != n || len(args) != arguments {
			return false
		}
		for i, name := range at {
			if name != "" && !strings.HasSuffix(keys[i], "}:"+name) {
				return false
			}
		}
		return true
	}
	switch {
	case fetchesTask(keys, args):
		return moveFetch
	case has(5, 3, "active", "lease", "", "", "processed"):
		return moveDone
	case has(6, 3, "active", "lease", "", "", "processed"):
		return moveDoneUnique
	case has(6, 5, "active", "lease", "completed"), has(7, 5, "active", "lease", "completed"):
		return moveComplete
	case has(4, 1, "active", "lease", "pending"):
		return moveRequeue
	case has(8, 6, "", "active", "lease", "retry"):
		return moveRetry
	case has(9, 7, "", "active", "lease", "archived"):
		return moveArchive
	case has(1, 2, "lease"):
		return moveListLeases
	case has(2, 4, "scheduled", "pending"), has(2, 4, "retry", "pending"):
		return moveForward
	}
	return noMove
}

// broker is the Redis client that an asynq server uses. asynq offers no other place where its scripts can be changed.
type broker struct {
	redis.UniversalClient
	base    *base
	steps   *steps
	fetcher *fetcher
}

// EvalSha implements redis.Scripter.
func (b *broker) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if answer := b.known(ctx, keys, args); answer != nil {
		return answer
	}
	if m := moveOf(keys, args); m != noMove {
		return b.run(ctx, m, keys, args)
	}
	return b.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

// known is what is answered to asynq without Redis: a task that was fetched before, that a queue sleeps, and that a task
// has ended that has. It is nil if Redis has to be asked.
func (b *broker) known(ctx context.Context, keys []string, args []any) *redis.Cmd {
	if answer := answerAsleep(b.base.cfg.Asleep, keys, args); answer != nil {
		return answer
	}
	switch moveOf(keys, args) {
	case moveFetch:
		if task, ok := b.fetcher.next(keys[fetchPending]); ok {
			return b.took(task)
		}
	case moveDone:
		if _, mine := ctx.Deadline(); mine {
			if _, told := b.base.claims.asynqEnds(keys[2]); told {
				return redis.NewCmdResult("OK", nil)
			}
		}
	}
	return nil
}

// fetch gives asynq the next task of a queue.
func (b *broker) fetch(ctx context.Context, keys []string, args []any) *redis.Cmd {
	task, err := b.fetcher.fetch(ctx, keys, args[1])
	if err != nil {
		return redis.NewCmdResult(nil, err)
	}
	return b.took(task)
}

// took gives asynq a task.
func (b *broker) took(task fetched) *redis.Cmd {
	if b.base.cfg.Took != nil {
		b.base.cfg.Took(nameIn(task.key))
	}
	if b.base.cfg.Fetched != nil {
		b.base.cfg.Fetched(task.key, task.lost)
	}
	return redis.NewCmdResult(withoutTimeout(task.message), nil)
}

// What the scripts answer that move a task.
const (
	notActive = -2 // it is in no list of active tasks
	notOurs   = -1 // it has another owner, or its lease is not over
	moved     = 0  // or how many leases it has lost
)

// A script that moves a task begins with this. KEYS are asynq's; ARGV are asynq's, and behind them events, or "", and how many bytes of them
// are kept; what of the notes is written: "late" if they may have been (Notes.Late), "left" if the events are those of
// events.OfTask, "" if all is; a record for the history, or "", with the arguments of historyKeep; the owner, or "" for a
// task whose lease is over, the field of the owner, and that of the lost leases.
//
// asynq gives a task back whose lease is over for leaseGrace: each server makes a list of such tasks, when it starts and
// every minute after that, and moves them one by one. It does not look at the lease again. While one
// server works on its list, another one may have given the task back and a worker have fetched it: it would be moved
// away from under that worker, and sent twice. So the script that moves it looks.
var moveLua = history.Lua + events.Lua + `
local time = tonumber(redis.call("TIME")[1])
local owner, ownerField, lostField = ARGV[#ARGV - 3], ARGV[#ARGV - 2], ARGV[#ARGV - 1]
local function take(task, active, lease, id)
  local lost, record, key = 0, ARGV[#ARGV - 7], ARGV[#ARGV - 6]
  local events, kind = ARGV[#ARGV - 10], ARGV[#ARGV - 8]
  if ARGV[#ARGV] == "over" then
    local ends = redis.call("ZSCORE", lease, id)
    if not ends or tonumber(ends) > time - 30 then return -1 end
  elseif (redis.call("HGET", task, ownerField) or "") ~= owner then
    return -1
  end
  if redis.call("LREM", active, 0, id) == 0 then return -2 end
  if kind == "late" then
    local sent, unrecorded = unpack(redis.call("HMGET", task, "` + wire.FieldSent + `", "` + wire.FieldUnrecorded + `"))
    if sent and not unrecorded then record, events = "", "" end
  elseif kind == "left" then
    events = eventsLeft(task, events)
  end
  if record ~= "" then historyKeep(key, record, time, ARGV[#ARGV - 5], ARGV[#ARGV - 4]) end
  eventsAdd(string.sub(key, 1, -8) .. "events", events, ARGV[#ARGV - 9])
  redis.call("ZREM", lease, id)
  if ARGV[#ARGV] == "over" and redis.call("EXISTS", task) == 1 then
    lost = math.max(redis.call("HINCRBY", task, lostField, 1), 0)
  end
  redis.call("HDEL", task, ownerField)
  return lost
end
local function count(day, all, expires, most)
  if redis.call("INCR", day) == 1 then redis.call("EXPIREAT", day, expires) end
  if redis.call("GET", all) == most then redis.call("SET", all, 1) else redis.call("INCR", all) end
end
local function unlock(key, id)
  if key and redis.call("GET", key) == id then redis.call("DEL", key) end
end
`

var (
	doneScript = redis.NewScript(moveLua + `
local lost = take(KEYS[3], KEYS[1], KEYS[2], ARGV[1])
if lost < 0 then return lost end
redis.call("DEL", KEYS[3])
count(KEYS[4], KEYS[5], ARGV[2], ARGV[3])
unlock(KEYS[6], ARGV[1])
return lost`)

	completeScript = redis.NewScript(moveLua + `
local lost = take(KEYS[4], KEYS[1], KEYS[2], ARGV[1])
if lost < 0 then return lost end
redis.call("ZADD", KEYS[3], time + ARGV[3], ARGV[1])
redis.call("HSET", KEYS[4], "msg", ARGV[4], "state", "completed")
count(KEYS[5], KEYS[6], ARGV[2], ARGV[5])
unlock(KEYS[7], ARGV[1])
return lost`)

	requeueScript = redis.NewScript(moveLua + `
local lost = take(KEYS[4], KEYS[1], KEYS[2], ARGV[1])
if lost < 0 then return lost end
redis.call("RPUSH", KEYS[3], ARGV[1])
redis.call("HSET", KEYS[4], "state", "pending")
return lost`)

	retryScript = redis.NewScript(moveLua + `
local lost = take(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if lost < 0 then return lost end
redis.call("ZADD", KEYS[4], time + ARGV[3], ARGV[1])
redis.call("HSET", KEYS[1], "msg", ARGV[2], "state", "retry")
if tonumber(ARGV[5]) == 1 then
  count(KEYS[5], KEYS[7], ARGV[4], ARGV[6])
  count(KEYS[6], KEYS[8], ARGV[4], ARGV[6])
end
return lost`)

	// asynq drops old dead letters from the archive here. They are not ours to drop.
	archiveScript = redis.NewScript(moveLua + `
local lost = take(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if lost < 0 then return lost end
redis.call("ZADD", KEYS[4], time, ARGV[1])
redis.call("HSET", KEYS[1], "msg", ARGV[2], "state", "archived")
count(KEYS[5], KEYS[7], ARGV[6], ARGV[7])
count(KEYS[6], KEYS[8], ARGV[6], ARGV[7])
return lost`)

	// extendScript prolongs the leases KEYS[1] of tasks, which are KEYS[2] and what follows, by ARGV[1] seconds. Their IDs and
	// owners are ARGV[3] and what follows. It returns 1 for each that is whose owner is given.
	extendScript = redis.NewScript(`
local ends, ours = redis.call("TIME")[1] + ARGV[1], {}
for i = 2, #KEYS do
  ours[i - 1] = 0
  if (redis.call("HGET", KEYS[i], ARGV[2]) or "") == ARGV[2 * i] and redis.call("ZSCORE", KEYS[1], ARGV[2 * i - 1]) then
    redis.call("ZADD", KEYS[1], "XX", ends, ARGV[2 * i - 1])
    ours[i - 1] = 1
  end
end
return ours`)

	listLeasesScript = redis.NewScript(`
local tasks = {}
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", redis.call("TIME")[1] - 30)) do
  local message = redis.call("HGET", ARGV[1] .. id, "msg")
  if message then tasks[#tasks + 1] = message end
end
return tasks`)

	forwardScript = redis.NewScript(`
local now = redis.call("TIME")
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now[1], "LIMIT", 0, 100)
for _, id in ipairs(ids) do
  local key = ARGV[1] .. id
  local group = redis.call("HGET", key, "group")
  redis.call("ZREM", KEYS[1], id)
  if group and group ~= "" then
    redis.call("ZADD", ARGV[2] .. group, now[1], id)
    redis.call("HSET", key, "state", "aggregating")
  else
    redis.call("LPUSH", KEYS[2], id)
    redis.call("HSET", key, "state", "pending", "pending_since", now[1] .. string.format("%06d", now[2]) .. "000")
  end
end
return #ids`)

	// resultScript writes the result of a task that is still whose owner is given.
	resultScript = redis.NewScript(`
local state, owner = unpack(redis.call("HMGET", KEYS[1], "state", ARGV[1]))
if not state or (owner or "") ~= ARGV[2] then return 0 end
return redis.call("HSET", KEYS[1], "result", ARGV[3])`)
)

// move runs our script in place of asynq's, with the same keys. task is the index of the task's record among them.
func (b *broker) move(ctx context.Context, script *redis.Script, keys []string, task int, args ...any) *redis.Cmd {
	key := keys[task]
	owner, mode := "", "over"
	if _, mine := ctx.Deadline(); mine { // what asynq does to a task of its own has to be done within its lease
		var told bool
		if owner, told = b.base.claims.asynqEnds(key); told {
			return redis.NewCmdResult("OK", nil)
		}
		mode = "mine"
	}
	var notes Notes
	kind := ""
	if mode == "mine" && script != requeueScript {
		notes = b.base.claims.noted(key)
	}
	if notes.Late {
		kind = "late"
	}
	if script == archiveScript && notes == (Notes{}) {
		notes.Events, kind = b.base.archived(key, args[1]), "left"
	}
	queue, _ := queueAndList(key)
	kept, hours, size := b.base.cfg.History.Args(queue)
	args = append(args, notes.Events, b.base.cfg.Events.Size, kind, notes.Record, kept, hours, size)
	answer, err := script.Run(ctx, b.base.redis, keys, append(args, owner, b.base.cfg.OwnerField, b.base.cfg.LostField, mode)...).Int()
	switch {
	case err != nil:
		return redis.NewCmdResult(nil, err)
	case mode == "mine":
		b.base.claims.ended(key, owner)
	}
	switch _, id := queueOf(key); {
	case answer == notActive:
		return redis.NewCmdResult(nil, errNotActive)
	case answer == notOurs:
		b.base.cfg.Logger.Debug().Str("task", id).Msg("another worker has the task: it is left alone")
	case mode == "over":
		b.base.cfg.Logger.Warn().Str("task", id).Int("lost_leases", answer).
			Msg("the worker that had this task died, or was cut off from Redis: another one goes on with it")
	}
	return redis.NewCmdResult("OK", nil)
}

// archived returns the events of a task that asynq archives by itself: it has lost too many leases, or its handler has said nothing of it.
func (b *base) archived(key string, message any) string {
	data, _ := message.([]byte)
	task, ok := ReadMessage(string(data))
	if !ok || !b.cfg.Events.On() || b.cfg.Archived == nil || task.Type != wire.TaskType && task.Type != wire.TaskTypeBulk {
		return ""
	}
	_, id := queueOf(key)
	return string(b.cfg.Archived(id, task))
}

// fromNow is how many seconds a time of asynq's is away. asynq reckons from this machine's clock.
func fromNow(at any) (int64, error) {
	unix, ok := at.(int64)
	if !ok {
		return 0, fmt.Errorf("asynqbatch: %T for a time", at)
	}
	return max(unix-time.Now().Unix(), 0), nil
}

// run runs our script in place of the one that asynq asks for.
func (b *broker) run(ctx context.Context, m move, keys []string, args []any) *redis.Cmd {
	args = withTimeouts(keys, args)
	switch m {
	case moveFetch:
		return b.fetch(ctx, keys, args)
	case moveDone:
		if _, mine := ctx.Deadline(); mine {
			return redis.NewCmdResult("OK", b.steps.asynqEnds(ctx, keys[2]))
		}
		return b.move(ctx, doneScript, keys, 2, args...)
	case moveDoneUnique:
		return b.move(ctx, doneScript, keys, 2, args...)
	case moveComplete:
		keep, err := fromNow(args[2])
		if err != nil {
			return redis.NewCmdResult(nil, err)
		}
		return b.move(ctx, completeScript, keys, 3, args[0], args[1], keep, args[3], args[4])
	case moveRequeue:
		return b.move(ctx, requeueScript, keys, 3, args...)
	case moveRetry:
		delay, err := fromNow(args[2])
		if err != nil {
			return redis.NewCmdResult(nil, err)
		}
		return b.move(ctx, retryScript, keys, 0, args[0], args[1], delay, args[3], args[4], args[5])
	case moveArchive:
		return b.move(ctx, archiveScript, keys, 0, args...)
	case moveListLeases:
		return listLeasesScript.Run(ctx, b.base.redis, keys, args[1])
	case moveForward:
		moved := forwardScript.Run(ctx, b.base.redis, keys, args[1], args[3])
		if n, err := moved.Int(); err == nil && n > 0 {
			b.base.wakers.wake(nameIn(keys[0]))
		}
		return moved
	}
	return redis.NewCmdResult(nil, fmt.Errorf("asynqbatch: no script %d", m))
}

// ZAddXX implements redis.Cmdable: with it asynq prolongs leases.
func (b *broker) ZAddXX(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	prefix, ok := strings.CutSuffix(key, "lease")
	if !ok || len(members) == 0 {
		return b.UniversalClient.ZAddXX(ctx, key, members...)
	}
	asked := b.base.claims.clock()
	keys := append(make([]string, 0, 1+len(members)), key)
	args := append(make([]any, 0, 2+2*len(members)), int(leaseTime/time.Second), b.base.cfg.OwnerField)
	owners := make([]string, len(members))
	for i, z := range members {
		task := prefix + "t:" + fmt.Sprint(z.Member)
		owners[i] = b.base.claims.owner(task)
		keys, args = append(keys, task), append(args, z.Member, owners[i])
	}
	ours, err := extendScript.Run(ctx, b.base.redis, keys, args...).Int64Slice()
	n := int64(0)
	for i := range min(len(ours), len(members)) {
		if n += ours[i]; ours[i] == 1 {
			b.base.claims.confirmed(keys[i+1], owners[i], asked+leaseTime)
		} else {
			b.base.claims.lost(keys[i+1], owners[i])
		}
	}
	cmd := redis.NewIntResult(n, err)
	return cmd
}

// HSet implements redis.Cmdable: with it asynq writes the result of a task, also of one that is gone.
func (b *broker) HSet(ctx context.Context, key string, values ...any) *redis.IntCmd {
	if _, id := queueOf(key); id == "" || len(values) != 2 || values[0] != "result" {
		return b.UniversalClient.HSet(ctx, key, values...)
	}
	n, err := resultScript.Run(ctx, b.base.redis, []string{key}, b.base.cfg.OwnerField, b.base.claims.owner(key), values[1]).Int64()
	return redis.NewIntResult(n, err)
}
