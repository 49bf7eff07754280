package sweep

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A task is a record, and its ID in the list of the state that the record says. If it is in no list nobody will ever
// run, show or delete it. That is how asynq's own tools drop what is too much for its archive, and what is left when a
// list is lost. The search goes through all records of tasks, and compares each with its list:
//
//	screen   a page of records in a script: those that are in no list, as far as that can be told there
//	mark     one by one: the record as it is now
//	         ... a minute ...
//	bury     one by one: if the record has not changed, and is in no list, it is a dead letter
//
// The scripts see a moment in which nothing else happens, and so they are sure of all lists but a long one of pending
// tasks, which no script is to look through. That is read in pages, between mark and bury. A task that was in no page
// may have been active meanwhile: but then it is not as it was when it was marked, for who takes a task removes
// pending_since from its record, which mark adds where it is missing, and who gives it back, or sets it aside, writes another one.

// mostSuspects is how many tasks are looked at again, at most: the next search finds the others.
const mostSuspects = 10_000

// task is where a task is.
type task struct{ queue, id string }

// search is one search for lost tasks.
type search struct {
	*Sweeper
	pending  map[string]*snapshot // by queue; nil: not known
	suspects map[task]string      // as they were when they were marked
}

// sweepLost searches, unless that was done lately, and has buried what it has found when it returns.
func (s *Sweeper) sweepLost(ctx context.Context) error {
	mine, err := s.claim(ctx, s.cfg.lostEvery, lostField)
	if err != nil || len(mine) == 0 {
		return err
	}
	f := &search{s, map[string]*snapshot{}, map[task]string{}}
	servers, err := nodes(ctx, s.redis)
	if err != nil {
		return err
	}
	for _, node := range servers {
		if err := f.scan(ctx, node); err != nil {
			return err
		}
	}
	if len(f.suspects) == 0 {
		return nil
	}
	if !wait(ctx, s.cfg.again) {
		return ctx.Err()
	}
	return f.buryAll(ctx)
}

// scan goes through the records of a server.
func (f *search) scan(ctx context.Context, node redis.UniversalClient) error {
	const keysAtOnce = 250
	claimed := time.Now()
	for cursor := uint64(0); ; {
		var keys []string
		err := f.slowly(ctx, func() (err error) {
			keys, cursor, err = node.Scan(ctx, cursor, "asynq:{*}:t:*", keysAtOnce).Result()
			return err
		})
		if err != nil {
			return err
		}
		ids := map[string][]string{}
		for _, key := range keys {
			if queue, id, ok := strings.Cut(strings.TrimPrefix(key, "asynq:{"), "}:t:"); ok {
				ids[queue] = append(ids[queue], id)
			}
		}
		for queue, these := range ids {
			if err := f.screen(ctx, queue, these); err != nil {
				return err
			}
		}
		if cursor == 0 || len(f.suspects) >= mostSuspects {
			return nil
		}
		if time.Since(claimed) > f.cfg.lostEvery/4 { // nobody else is to begin meanwhile
			claimed = time.Now()
			if err := f.redis.HSet(ctx, sweptKey, lostField, claimed.Unix()).Err(); err != nil {
				return err
			}
		}
	}
}

// luaRecord reads what the record of a task is, as far as anything that happens to the task changes it, and tells
// whether it is one that may be lost: not one that has ended, nor the mark of a replay.
const luaRecord = `
local function record(key)
  local r = redis.call("HMGET", key, "state", "pending_since", "` + wire.FieldReplayed + `", "` + wire.FieldSent + `", "` + wire.FieldCancelled + `", "` + wire.FieldWire + `",
    "` + wire.FieldOwner + `")
  local state = r[1]
  if r[3] or not (state == "pending" or state == "active" or state == "scheduled" or state == "retry" or state == "archived") then return nil end
  return state, r[2], r
end
`

// screenScript returns those of the tasks ARGV[4] and what follows that are in no list, and behind "?" those pending
// ones of which it cannot be told, since the list is longer than ARGV[2]. Those that are pending for less than ARGV[3]
// seconds it leaves out. ARGV[1] is what the keys of tasks begin with.
var screenScript = redis.NewScript(luaRecord + `
local now, short = tonumber(redis.call("TIME")[1]), tonumber(ARGV[2])
local lists = {}
local function isIn(n, id) -- nil: the list is too long
  if lists[n] == nil then
    lists[n] = false
    if redis.call("LLEN", KEYS[n]) <= short then
      lists[n] = {}
      for _, other in ipairs(redis.call("LRANGE", KEYS[n], 0, -1)) do lists[n][other] = true end
    end
  end
  if not lists[n] then return nil end
  return lists[n][id] or false
end
local lost, unknown = {}, {"?"}
for i = 4, #ARGV do
  local id = ARGV[i]
  local state, since = record(ARGV[1] .. id)
  if state == "pending" then
    local there = isIn(1, id)
    local young = since and now - (tonumber(string.sub(since, 1, -10)) or 0) < tonumber(ARGV[3])
    if there == nil and not young then unknown[#unknown + 1] = id end
    if there == false and not young then lost[#lost + 1] = id end
  elseif state == "active" then
    if isIn(2, id) == false then lost[#lost + 1] = id end
  elseif state == "archived" then
    if not redis.call("ZSCORE", KEYS[5], id) and not redis.call("ZSCORE", KEYS[6], id) then lost[#lost + 1] = id end
  elseif state then
    if not redis.call("ZSCORE", state == "retry" and KEYS[4] or KEYS[3], id) then lost[#lost + 1] = id end
  end
end
for _, id in ipairs(unknown) do lost[#lost + 1] = id end
return lost`)

// screen marks those of the tasks that are lost as far as it can tell.
func (f *search) screen(ctx context.Context, queue string, ids []string) error {
	args := append(make([]any, 0, 3+len(ids)), asynqbatch.TaskKey(queue, ""), f.cfg.short, f.cfg.minAge.Seconds())
	for _, id := range ids {
		args = append(args, id)
	}
	var found []string
	err := f.slowly(ctx, func() (err error) {
		found, err = screenScript.Run(ctx, f.redis, queueKeys(queue), args...).StringSlice()
		return err
	})
	if err != nil {
		return err
	}
	at := slices.Index(found, "?")
	lost, unknown := found[:at], found[at+1:]
	if len(unknown) > 0 {
		shot, known := f.pending[queue]
		if !known { // those that come into the list from now on are young
			if shot, err = f.snapshot(ctx, queueKeys(queue)[0]); err != nil {
				return err
			}
			f.pending[queue] = shot
		}
		for _, id := range unknown {
			if shot != nil && !shot.has(id) {
				lost = append(lost, id)
			}
		}
	}
	for _, id := range lost {
		if err := f.mark(ctx, task{queue, id}); err != nil {
			return err
		}
	}
	return nil
}

// luaLost tells whether a task of that state is in none of the lists KEYS[1] to KEYS[6]: 1, 0, or -1 for a pending one
// of which it cannot be told. Of a list that is longer than most it looks at the ends.
const luaLost = `
local function isLost(state, id, most)
  if state == "pending" or state == "active" then
    local list = state == "pending" and KEYS[1] or KEYS[2]
    if redis.call("LPOS", list, id, "MAXLEN", most) or redis.call("LPOS", list, id, "RANK", -1, "MAXLEN", most) then return 0 end
    if redis.call("LLEN", list) <= 2 * tonumber(most) then return 1 end
    return state == "pending" and -1 or 0
  elseif state == "archived" then
    return (redis.call("ZSCORE", KEYS[5], id) or redis.call("ZSCORE", KEYS[6], id)) and 0 or 1
  end
  return redis.call("ZSCORE", state == "retry" and KEYS[4] or KEYS[3], id) and 0 or 1
end
local function written(r)
  for i = 1, 7 do r[i] = r[i] or "" end
  return table.concat(r, "\n", 1, 7)
end
`

// markScript returns what the record KEYS[7] of the task ARGV[1] is, if that is one of ours and in no list that is not
// longer than twice ARGV[2]; otherwise nothing.
var markScript = redis.NewScript(luaRecord + luaLost + wire.LuaHeads + `
local state, since, r = record(KEYS[7])
if not state or isLost(state, ARGV[1], ARGV[2]) == 0 then return "" end
local kind = typeOf(redis.call("HGET", KEYS[7], "msg"))
if kind ~= "` + wire.TaskType + `" and kind ~= "` + wire.TaskTypeBulk + `" then return "" end
if state == "pending" and not since then
  local now = redis.call("TIME")
  r[2] = now[1] .. string.format("%06d000", now[2])
  redis.call("HSET", KEYS[7], "pending_since", r[2])
end
return written(r)`)

// mark notes what a task is that may be lost.
func (f *search) mark(ctx context.Context, t task) error {
	if len(f.suspects) >= mostSuspects {
		return nil
	}
	keys := append(queueKeys(t.queue), asynqbatch.TaskKey(t.queue, t.id))
	return f.slowly(ctx, func() error {
		is, err := markScript.Run(ctx, f.redis, keys, t.id, f.cfg.short).Text()
		if err == nil && is != "" {
			f.suspects[t] = is
		}
		return err
	})
}

// buryAll makes dead letters of the tasks that are as they were when they were marked, and in no list.
func (f *search) buryAll(ctx context.Context) error {
	byQueue := map[string]map[string]string{}
	for t, is := range f.suspects {
		if byQueue[t.queue] == nil {
			byQueue[t.queue] = map[string]string{}
		}
		byQueue[t.queue][t.id] = is
	}
	for queue, suspects := range byQueue {
		err := f.eachPending(ctx, queueKeys(queue)[0], func(ids []string) {
			for _, id := range ids {
				if strings.HasPrefix(suspects[id], "pending\n") {
					delete(suspects, id)
				}
			}
		})
		if err != nil {
			return err
		}
		if err := f.buryThese(ctx, queue, suspects); err != nil {
			return err
		}
	}
	return nil
}

// buryThese makes dead letters of tasks of a queue.
func (f *search) buryThese(ctx context.Context, queue string, suspects map[string]string) error {
	n, first := 0, ""
	defer func() {
		if n > 0 {
			f.cfg.Logger.Warn().Str("queue", queue).Int("tasks", n).Str("task", first).
				Msg("dead letters: tasks that were in no list of their queue, as asynq's tools and old versions leave them")
			f.cfg.Swept(queue, Lost, n)
		}
	}()
	for _, id := range slices.Sorted(maps.Keys(suspects)) {
		err := f.slowly(ctx, func() error {
			buried, err := f.buryLost(ctx, queue, id, suspects[id])
			if buried {
				n++
				first = id
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// endLostScript ends the task ARGV[1] with the record KEYS[7], if that is still ARGV[3] and the task is in no list that
// is not longer than twice ARGV[2]. How is ARGV[4]: "dead", a dead letter with the reason ARGV[6], and what its message
// gets at its end, ARGV[5], and events of the task, ARGV[7], of which ARGV[8] bytes are kept in KEYS[10]; or "ended", for so many seconds
// as ARGV[5] says. It returns 1 if it has.
var endLostScript = redis.NewScript(events.Lua + luaRecord + luaLost + `
local state, since, r = record(KEYS[7])
if not state or written(r) ~= ARGV[3] or isLost(state, ARGV[1], ARGV[2]) == 0 then return 0 end
local now = tonumber(redis.call("TIME")[1])
redis.call("ZREM", KEYS[8], ARGV[1])
if ARGV[4] == "ended" and tonumber(ARGV[5]) == 0 then
  redis.call("DEL", KEYS[7])
elseif ARGV[4] == "ended" then
  redis.call("HSET", KEYS[7], "state", "completed")
  redis.call("ZADD", KEYS[9], now + ARGV[5], ARGV[1])
else
  redis.call("HSET", KEYS[7], "state", "archived", "msg", redis.call("HGET", KEYS[7], "msg") .. ARGV[5])
  if ARGV[6] ~= "" then redis.call("HSET", KEYS[7], "` + wire.FieldReason + `", ARGV[6]) end
  redis.call("HDEL", KEYS[7], "pending_since", "` + wire.FieldOwner + `")
  redis.call("ZADD", KEYS[5], now, ARGV[1])
  eventsAdd(KEYS[10], eventsLeft(KEYS[7], ARGV[7]), ARGV[8])
end
return 1`)

// buryLost makes a dead letter of a task, or ends it if its message was sent or cancelled.
func (f *search) buryLost(ctx context.Context, queue, id, was string) (buried bool, err error) {
	key := asynqbatch.TaskKey(queue, id)
	msg, err := f.redis.HGet(ctx, key, "msg").Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	message, _ := asynqbatch.ReadMessage(msg)
	how := []any{"ended", int64(message.Retention / time.Second), "", "", 0}
	fields := strings.SplitN(was, "\n", 7) // as luaRecord has them
	switch sent, cancelled := fields[3] != "", fields[4] != ""; {
	case cancelled && !sent:
		how[1] = 0
	case !sent:
		how = []any{"dead", "", "", "", 0} // a dead letter has its reason, and its events
		if message.LastError == "" || fields[0] != "archived" {
			reason := redact.Reason(reasonOf(fields[0], message.LastError, fields[5]), true)
			how = []any{
				"dead", asynqbatch.Failed(redact.Reason(reason, false), time.Now()), reason,
				f.eventsOf(id, message, reason), f.cfg.Events.Size,
			}
		}
	}
	keys := append(queueKeys(queue), key, "asynq:{"+queue+"}:lease", "asynq:{"+queue+"}:completed", events.Key(queue))
	n, err := endLostScript.Run(ctx, f.redis, keys, append([]any{id, f.cfg.short, was}, how...)...).Int()
	if err != nil || n == 0 || how[0] == "ended" {
		return false, err
	}
	f.cfg.Buried(ctx, queue, []string{id})
	if err := f.redis.SAdd(ctx, "asynq:queues", queue).Err(); err != nil { // for those who look for dead letters
		return true, err
	}
	return true, asynqbatch.MakeRoom(ctx, f.redis, queue, asynqbatch.TaskKey(queue, ""), "")
}

// reasonOf is why a lost task of that state is a dead letter. last is its last failure, onWire whether a try of it may
// have delivered the message.
func reasonOf(state, last, onWire string) string {
	if state == "archived" {
		return asynqbatch.ByHand
	}
	reason := fmt.Sprintf("it was %s, and in no list of its queue: nobody would have sent it", state)
	if onWire != "" && onWire != wire.Decided {
		reason += "; an earlier try may have delivered it"
	}
	if last != "" {
		reason += "; its last failure: " + last
	}
	return reason
}
