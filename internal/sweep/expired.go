package sweep

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// What waits expires where it waits. A worker ends what it has in hand itself; what is in Redis is found here. A queue
// that moves costs one short script a minute: while the oldest of those that wait has been there for less than a minute
// none is read. Otherwise its list is read in pages, of each payload the part before its message.

// sweepExpired looks at the queues that this worker serves and that no other has looked at lately.
func (s *Sweeper) sweepExpired(ctx context.Context) error {
	queues, err := s.redis.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return err
	}
	queues = slices.DeleteFunc(queues, func(q string) bool { return !s.cfg.Serves(q) })
	slices.Sort(queues)
	const atOnce = 100
	for some := range slices.Chunk(queues, atOnce) {
		var due []string
		err := s.slowly(ctx, func() (err error) {
			due, err = s.claim(ctx, s.cfg.every, some...)
			return err
		})
		if err != nil {
			return err
		}
		for _, queue := range due {
			if err := s.expire(ctx, queue); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookScript returns how many tasks are pending (KEYS[1]), since when the oldest of those, in ns, how many are scheduled
// (KEYS[3]) before now and ARGV[2] seconds, how many are to be tried again (KEYS[4]), and the time, in seconds; and how many of
// the scheduled ones are set aside, and how many those before them are, for their mailing is paused.
var lookScript = redis.NewScript(`
local now = tonumber(redis.call("TIME")[1])
local oldest = redis.call("LINDEX", KEYS[1], -1)
local since = oldest and redis.call("HGET", ARGV[1] .. oldest, "pending_since") or "0"
return {redis.call("LLEN", KEYS[1]), tonumber(string.sub(since, 1, -10)) or 0,
  redis.call("ZCOUNT", KEYS[3], "-inf", now + ARGV[2]), redis.call("ZCARD", KEYS[4]), now,
  redis.call("ZCOUNT", KEYS[3], ARGV[3], ARGV[3]), redis.call("ZCOUNT", KEYS[3], "-inf", "(" .. ARGV[3])}`)

// expire makes dead letters of what has expired in a queue.
func (s *Sweeper) expire(ctx context.Context, queue string) error {
	keys, prefix := queueKeys(queue), asynqbatch.TaskKey(queue, "")
	var look []int64
	err := s.slowly(ctx, func() (err error) {
		look, err = lookScript.Run(ctx, s.redis, keys, prefix, int64(s.cfg.Horizon/time.Second), wire.AsideUntil).Int64Slice()
		return err
	})
	if err != nil {
		return err
	}
	pending, since, scheduled, retry, now, aside, before := look[0], look[1], look[2], look[3], look[4], look[5], look[6]
	moved := 0
	if pending > 0 && time.Duration(now-since)*time.Second >= s.cfg.minAge {
		if moved, err = s.expireList(ctx, queue, "pending", 0, pending); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		state    string
		from, to int64
	}{{"scheduled", before, before + aside}, {"scheduled", 0, scheduled}, {"retry", 0, retry}} {
		more, err := s.expireList(ctx, queue, part.state, part.from, part.to)
		if moved += more; err != nil {
			return err
		}
	}
	if moved > 0 {
		s.cfg.Logger.Warn().Str("queue", queue).Int("tasks", moved).Msg("dead letters: mail that has waited in the queue until its time was up")
		s.cfg.Swept(queue, Expired, moved)
	}
	return nil
}

// The tasks of a page. Each of a bulk queue may have a megabyte.
const (
	page     = 100
	bulkPage = 4
)

// expireList goes through the tasks of a list from one number to another. Those that are next have the lowest.
func (s *Sweeper) expireList(ctx context.Context, queue, state string, from, n int64) (moved int, err error) {
	most := int64(page)
	if wire.ParseQueueName(queue).Bulk {
		most = bulkPage
	}
	for at := from; at < n; {
		size := min(most, n-at)
		var tasks []expired
		err := s.slowly(ctx, func() (err error) {
			tasks, err = s.look(ctx, queue, state, at, size)
			return err
		})
		if err != nil {
			return moved, err
		}
		gone := 0
		if len(tasks) > 0 {
			err := s.slowly(ctx, func() (err error) {
				gone, err = s.bury(ctx, queue, state, at, size, tasks)
				return err
			})
			if moved += gone; err != nil {
				return moved, err
			}
		}
		at, n = at+size-int64(gone), n-int64(gone)
	}
	return moved, nil
}

// expired is a task whose messages have expired.
type expired struct{ id, reason string }

// window returns the numbers of the tasks from at on, of so many, as Redis counts. What is next is at the end of the
// list of pending tasks, and at the beginning of the sorted sets.
func window(state string, at, size int64) (from, to int64) {
	if state == "pending" {
		return -at - size, -at - 1
	}
	return at, at + size - 1
}

// peekScript returns the time, and the ID and the heads of the payloads of each task of ours from ARGV[2] to ARGV[3] in
// KEYS[1].
var peekScript = redis.NewScript(wire.LuaHeads + `
local found = {redis.call("TIME")[1]}
local range = redis.call("TYPE", KEYS[1]).ok == "list" and "LRANGE" or "ZRANGE"
for _, id in ipairs(redis.call(range, KEYS[1], ARGV[2], ARGV[3])) do
  local heads = heads(redis.call("HGET", ARGV[1] .. id, "msg"))
  if heads then
    found[#found + 1] = id
    found[#found + 1] = heads
  end
end
return found`)

// look returns what has expired of a page.
func (s *Sweeper) look(ctx context.Context, queue, state string, at, size int64) ([]expired, error) {
	from, to := window(state, at, size)
	list := "asynq:{" + queue + "}:" + state
	answer, err := peekScript.Run(ctx, s.redis, []string{list}, asynqbatch.TaskKey(queue, ""), from, to).StringSlice()
	if err != nil {
		return nil, err
	}
	now, err := seconds(answer[0])
	if err != nil {
		return nil, err
	}
	var tasks []expired
	for i := 1; i+1 < len(answer); i += 2 {
		if reason := s.reason(queue, answer[i+1], now); reason != nil {
			tasks = append(tasks, expired{answer[i], redact.Reason(reason.Error(), true)})
		}
	}
	return tasks, nil
}

// reason returns why none of the messages of a task, whose heads these are, may be sent any more, nil if one may be.
func (s *Sweeper) reason(queue, heads string, now time.Time) error {
	var reason error
	for line := range strings.Lines(heads) {
		m, err := wire.DecodeHead(strings.TrimSuffix(line, "\n"))
		if err != nil || !m.Readable() {
			return nil
		}
		if reason = s.cfg.Expired(queue, m, now); reason == nil {
			return nil
		}
	}
	return reason
}

// buryScript makes dead letters of tasks in KEYS[1], if they are still there, among those from ARGV[2] to ARGV[3], and
// were neither sent nor cancelled: a worker that takes one at the same time has it, or the script has. KEYS[2] is
// asynq's archive, KEYS[3] are the events, of which ARGV[5] bytes are kept. From ARGV[6] on there are the IDs, what each message gets at its end, the reason, and the events of the task. Of a list it
// first overwrites what goes, for Redis looks through a list from one of its ends for each that it removes, but once for
// all that are the same. It returns the IDs of those that there were.
var buryScript = redis.NewScript(events.Lua + `
local list, place, nearEnd = redis.call("TYPE", KEYS[1]).ok == "list", {}, true
if list then
  local length = redis.call("LLEN", KEYS[1])
  local first = math.max(tonumber(ARGV[2]) + length, 0)
  nearEnd = first > length / 2
  for i, id in ipairs(redis.call("LRANGE", KEYS[1], first, ARGV[3])) do place[id] = first + i - 1 end
end
local now, n, buried, told = redis.call("TIME")[1], 0, {}, {}
for i = 6, #ARGV, 4 do
  local id = ARGV[i]
  local key = ARGV[1] .. id
  local state, msg, sent, cancelled = unpack(redis.call("HMGET", key, "state", "msg", "` + wire.FieldSent + `", "` + wire.FieldCancelled + `"))
  if state == ARGV[4] and msg and not sent and not cancelled then
    local there
    if list then
      there = place[id]
      if there then redis.call("LSET", KEYS[1], there, "") end
    else
      there = redis.call("ZREM", KEYS[1], id) == 1
    end
    if there then
      told[#told + 1] = eventsLeft(key, ARGV[i + 3])
      redis.call("HSET", key, "state", "archived", "msg", msg .. ARGV[i + 1], "` + wire.FieldReason + `", ARGV[i + 2], "` + wire.FieldWire + `", "` + wire.Decided + `")
      redis.call("HDEL", key, "pending_since")
      redis.call("ZADD", KEYS[2], now, id)
      n = n + 1
      buried[n] = id
    end
  end
end
if list and n > 0 then redis.call("LREM", KEYS[1], nearEnd and -n or n, "") end
eventsAdd(KEYS[3], table.concat(told), ARGV[5])
return buried`)

// bury makes dead letters of tasks of a page that have expired, and returns of how many.
func (s *Sweeper) bury(ctx context.Context, queue, state string, at, size int64, tasks []expired) (int, error) {
	const margin = 50 // some may have been taken, or given back
	from, to := window(state, max(at-margin, 0), size+2*margin)
	messages, err := s.messages(ctx, queue, tasks)
	if err != nil {
		return 0, err
	}
	args := append(make([]any, 0, 5+4*len(tasks)), asynqbatch.TaskKey(queue, ""), from, to, state, s.cfg.Events.Size)
	for i, t := range tasks {
		args = append(args, t.id, asynqbatch.Failed(redact.Reason(t.reason, false), time.Now()), t.reason, s.eventsOf(t.id, messages[i], t.reason))
	}
	prefix := "asynq:{" + queue + "}:"
	buried, err := buryScript.Run(ctx, s.redis, []string{prefix + state, prefix + "archived", events.Key(queue)}, args...).StringSlice()
	if err != nil || len(buried) == 0 {
		return 0, err
	}
	s.cfg.Buried(ctx, queue, buried)
	return len(buried), asynqbatch.MakeRoom(ctx, s.redis, queue, asynqbatch.TaskKey(queue, ""), "")
}

// messages are asynq's messages of tasks, if there are to be events of them: whom they are for is not in what was looked at.
func (s *Sweeper) messages(ctx context.Context, queue string, tasks []expired) ([]asynqbatch.Message, error) {
	messages := make([]asynqbatch.Message, len(tasks))
	if !s.cfg.Events.On() {
		return messages, nil
	}
	answers := make([]*redis.StringCmd, len(tasks))
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, t := range tasks {
			answers[i] = p.HGet(ctx, asynqbatch.TaskKey(queue, t.id), "msg")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // as one is gone
		return nil, err
	}
	for i, a := range answers {
		messages[i], _ = asynqbatch.ReadMessage(a.Val())
	}
	return messages, nil
}

// seconds reads a time in seconds.
func seconds(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(n, 0), err
}
