package asynqbatch

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// A paused queue has asynq's key that says so, so that no server of any program fetches from it. The tasks of a paused mailing
// wait among the scheduled ones, for they stand between those of others: the script that fetches sets them aside.
//
//	pending:    a1 b1 a2 c1         a is paused:   b1 c1          and back:   a1 a2 b1 c1
//	scheduled:                                     a1 a2
//
// What a worker has in hand already is asked about by the script that marks a message as on the wire: see luaPaused.

// PausedKey is there while one of asynq's queues is paused.
func PausedKey(queue string) string { return "asynq:{" + queue + "}:paused" }

// luaPaused is for scripts with asynq's key of a paused queue, and wire.PausesKey, as KEYS[5] and KEYS[6]. Redis is asked once
// in a script, unless something is paused.
//
//	halts()          reports whether anything of the queue is paused
//	paused(mailing)  is "queue" if the queue is, "mailing" if the mailing of a message is, which is nil if it has none, or nil
const luaPaused = `
local halted
local function halts()
  if halted == nil then halted = redis.call("EXISTS", KEYS[5], KEYS[6]) > 0 end
  return halted
end
local function paused(mailing)
  if not halts() then return nil end
  if redis.call("EXISTS", KEYS[5]) == 1 then return "queue" end
  if mailing and redis.call("HGET", KEYS[6], "` + wire.FieldMailing + `" .. mailing) == "` + wire.MailingPaused + `" then return "mailing" end
end
`

// luaAside is for scripts that take or give back tasks.
//
//	touched(since)                                     since when a task is pending, in other words: a few nanoseconds later or earlier
//	mailingState(pauses, message)                      the message's mailing, nil if it has none, and the value of its field in wire.PausesKey
//	putAside(list, pauses, mailing, id, key, since)    sets a task of that mailing aside, by when it came. The script takes it out of its list
//
// list is what the keys of the queue's lists begin with, pauses is wire.PausesKey, key the task's record.
var luaAside = wire.LuaMailing + `
local states = {}
local function mailingState(pauses, message)
  local mailing = mailingOf(message)
  if not mailing then return nil, "" end
  if states[mailing] == nil then states[mailing] = redis.call("HGET", pauses, "` + wire.FieldMailing + `" .. mailing) or "" end
  return mailing, states[mailing]
end
local function touched(since)
  return string.sub(since, 1, -3) .. string.format("%02d", ((tonumber(string.sub(since, -2)) or 0) + 1) % 100)
end
local function putAside(list, pauses, mailing, id, key, since)
  redis.call("ZADD", list .. "scheduled", "` + strconv.Itoa(wire.AsideUntil) + `", id)
  redis.call("ZADD", string.sub(pauses, 1, -7) .. "aside:" .. mailing, (tonumber(since) or redis.call("TIME")[1] * 1000000000) / 1000, id)
  redis.call("HSET", key, "state", "scheduled")
  if since then redis.call("HSET", key, "pending_since", touched(since)) end
end
`

// Wanted is what is to be paused of one of asynq's queues.
type Wanted struct {
	Queue    bool
	Firm     bool     // also if somebody resumes the queue with asynq's tools
	Mailings []string // all that are
}

// By is what was done to a queue with asynq's tools since it was last looked at.
type By string

// The kinds.
const (
	ByNobody  By = ""
	ByPausing By = "paused"
	ByResume  By = "resumed"
)

// Found is what SetPauses has found.
type Found struct {
	By   By
	Back []string // mailings whose tasks are to come back: see Return
}

// pausesScript makes a queue paused, or not, as ARGV[1] says: "", "1" or "firm". The mailings follow, from ARGV[3] on; ARGV[2]
// is the time. KEYS are asynq's key of a paused queue and wire.PausesKey. A queue that was found paused is marked as that, so that
// a resume that comes before the pause is noted is seen as one: else the queue would be paused again.
var pausesScript = redis.NewScript(`
local raw, mark, by = redis.call("EXISTS", KEYS[1]) == 1, redis.call("HGET", KEYS[2], "` + wire.FieldQueuePaused + `"), ""
if ARGV[1] == "" then
  if mark == "` + wire.QueuePaused + `" then
    redis.call("DEL", KEYS[1])
    redis.call("HDEL", KEYS[2], "` + wire.FieldQueuePaused + `")
  elseif raw then
    redis.call("HSET", KEYS[2], "` + wire.FieldQueuePaused + `", "` + wire.QueueFoundPaused + `")
    by = "paused"
  elseif mark then
    redis.call("HDEL", KEYS[2], "` + wire.FieldQueuePaused + `")
  end
elseif not raw and mark and ARGV[1] ~= "firm" then
  redis.call("HDEL", KEYS[2], "` + wire.FieldQueuePaused + `")
  by = "resumed"
else
  if not raw then redis.call("SET", KEYS[1], ARGV[2]) end
  if mark ~= "` + wire.QueuePaused + `" then redis.call("HSET", KEYS[2], "` + wire.FieldQueuePaused + `", "` + wire.QueuePaused + `") end
end
local wanted, answer = {}, {by}
for i = 3, #ARGV do
  local field = "` + wire.FieldMailing + `" .. ARGV[i]
  wanted[field] = true
  if redis.call("HGET", KEYS[2], field) ~= "` + wire.MailingPaused + `" then redis.call("HSET", KEYS[2], field, "` + wire.MailingPaused + `") end
end
for _, field in ipairs(redis.call("HKEYS", KEYS[2])) do
  if field ~= "` + wire.FieldQueuePaused + `" and not wanted[field] then
    redis.call("HSET", KEYS[2], field, "` + wire.MailingBack + `")
    answer[#answer + 1] = string.sub(field, ` + strconv.Itoa(len(wire.FieldMailing)+1) + `)
  end
end
return answer`)

// args are the arguments of pausesScript.
func (w Wanted) args(now int64) []any {
	args := make([]any, 0, 2+len(w.Mailings))
	switch {
	case w.Queue && w.Firm:
		args = append(args, "firm")
	case w.Queue:
		args = append(args, "1")
	default:
		args = append(args, "")
	}
	args = append(args, now)
	for _, name := range w.Mailings {
		args = append(args, name)
	}
	return args
}

// SetPauses makes queues paused as is wanted, in one round trip, and returns what it has found of each.
func SetPauses(ctx context.Context, client redis.UniversalClient, wanted map[string]Wanted) (map[string]Found, error) {
	now := time.Now().Unix()
	answers := map[string]*redis.Cmd{}
	ask := func(queues map[string]Wanted, run func(pipe redis.Pipeliner, keys []string, args []any) *redis.Cmd) error {
		_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for queue, w := range queues {
				answers[queue] = run(pipe, []string{PausedKey(queue), wire.PausesKey(queue)}, w.args(now))
			}
			return nil
		})
		return err
	}
	err := ask(wanted, func(pipe redis.Pipeliner, keys []string, args []any) *redis.Cmd {
		return pausesScript.EvalSha(ctx, pipe, keys, args...)
	})
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") { // on some master of a cluster: what others have found they will not find again
		missing := maps.Clone(wanted)
		maps.DeleteFunc(missing, func(queue string, _ Wanted) bool { return answers[queue].Err() == nil })
		err = ask(missing, func(pipe redis.Pipeliner, keys []string, args []any) *redis.Cmd {
			return pausesScript.Eval(ctx, pipe, keys, args...)
		})
	}
	if err != nil {
		return nil, err
	}
	found := map[string]Found{}
	for queue, answer := range answers {
		said, err := answer.StringSlice()
		if err != nil {
			return nil, err
		}
		found[queue] = Found{By: By(said[0]), Back: said[1:]}
	}
	return found, nil
}

// returnScript puts up to ARGV[2] tasks of a mailing, the ones that came last first, at the head of their queue, so that the
// one that came first is fetched first in the end. KEYS are asynq's scheduled and pending tasks, wire.AsideKey and
// wire.PausesKey; ARGV[1] is what the keys of tasks begin with, ARGV[3] the field of the mailing, ARGV[4] wire.AsideUntil. When none is left the mailing
// is not paused any more.
var returnScript = redis.NewScript(`
if redis.call("HGET", KEYS[4], ARGV[3]) ~= "` + wire.MailingBack + `" then return 0 end
local ids = redis.call("ZREVRANGE", KEYS[3], 0, ARGV[2] - 1)
for _, id in ipairs(ids) do
  redis.call("ZREM", KEYS[3], id)
  if redis.call("ZSCORE", KEYS[1], id) == ARGV[4] then
    redis.call("ZREM", KEYS[1], id)
    redis.call("RPUSH", KEYS[2], id)
    redis.call("HSET", ARGV[1] .. id, "state", "pending")
  end
end
if #ids == 0 then redis.call("HDEL", KEYS[4], ARGV[3]) end
return #ids`)

// mostReturned is how many tasks one script brings back.
const mostReturned = 500

// Return brings back what was set aside of a mailing in a queue, in the order in which it came.
func Return(ctx context.Context, client redis.UniversalClient, queue, mailing string) error {
	prefix := "asynq:{" + queue + "}:"
	keys := []string{prefix + "scheduled", prefix + "pending", wire.AsideKey(queue, mailing), wire.PausesKey(queue)}
	for {
		n, err := returnScript.Run(ctx, client, keys, TaskKey(queue, ""), mostReturned, wire.FieldMailing+mailing, wire.AsideUntil).Int()
		if err != nil || n == 0 {
			return err
		}
	}
}
