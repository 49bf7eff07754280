package cancel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/pauses"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// A mailing is cancelled in passes over all lists of all queues. It is paused first: so nothing more of it comes to the wire,
// however long that takes, and its tasks hardly move from list to list meanwhile. Mostly they move on in the order in which a
// pass looks at the lists. What went back, and what the relay has refused for now since, the next pass finds: so the last two
// have nothing to take back. No index says which tasks a mailing has: each hand-over would pay for
// it, and it would not know what asynq's tools delete.

const (
	quietPasses   = 2
	passPause     = 200 * time.Millisecond
	mailingPage   = 200 // tasks that one script looks at
	mailingBulk   = 10  // and in a queue of bulk tasks
	cancelsAtOnce = 16
)

// Mailing takes back all messages of a mailing that are not on the wire, in all queues and for all mailers. It returns how many
// were not sent and will not be, and of how many others Redis has something yet. It goes on while there is something to take back,
// and then waits for what is on the wire, for OnWire. If it returns an error the mailing stays paused, and it can be called again.
func (c Canceller) Mailing(ctx context.Context, name string) (cancelled, tooLate int, err error) {
	if err := mailer.CheckName("mailing", name); err != nil {
		return 0, 0, err
	}
	target := pauses.Target{Mailing: name}
	if _, err := pauses.Set(ctx, c.Redis, pauses.Pause{Target: target, Reason: "is being cancelled"}); err != nil {
		return 0, 0, err
	}
	m := &mailing{Canceller: c, name: name, late: map[string]bool{}}
	if err := m.run(ctx); err != nil {
		return m.cancelled, len(m.late), fmt.Errorf("%w (the mailing %s stays paused: cancel it again, or resume it)", err, name)
	}
	_, err = pauses.End(ctx, c.Redis, target)
	return m.cancelled, len(m.late), err
}

// mailing is one run of Mailing.
type mailing struct {
	Canceller

	name string

	mu        sync.Mutex
	cancelled int
	late      map[string]bool // messages that could not be cancelled, by their IDs
}

func (c *mailing) run(ctx context.Context) error {
	quiet, since := 0, time.Now() // passes that took nothing back, and since when
	for {
		before := c.cancelled
		active, err := c.pass(ctx)
		if err != nil {
			return err
		}
		if quiet++; c.cancelled > before {
			quiet, since = 0, time.Now()
		}
		if quiet >= quietPasses && (!active || time.Since(since) >= c.OnWire) {
			return c.ended(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(passPause):
		}
	}
}

// pass looks at all that waits, and reports whether a worker has something of the mailing.
func (c *mailing) pass(ctx context.Context) (active bool, err error) {
	err = c.each(ctx, []string{"pending", "active", "retry", "scheduled"}, func(place wire.QueueName, list string, ids []string) (int, error) {
		active = active || list == "active"
		return c.cancelAll(ctx, place, ids)
	})
	return active, err
}

// ended notes the messages that have ended and are kept.
func (c *mailing) ended(ctx context.Context) error {
	return c.each(ctx, []string{"completed", "archived"}, func(place wire.QueueName, _ string, ids []string) (int, error) {
		for _, id := range ids {
			if !place.Bulk {
				c.late[id] = true
				continue
			}
			n, err := c.messages(ctx, place, id)
			if err != nil {
				return 0, err
			}
			for i := range n {
				c.late[wire.MessageID(id, i)] = true
			}
		}
		return 0, nil
	})
}

// each calls do with the tasks of the mailing in these lists of all queues, page by page. do returns how many of them left their list.
func (c *mailing) each(ctx context.Context, lists []string, do func(place wire.QueueName, list string, ids []string) (left int, err error)) error {
	names, err := find.Queues(ctx, c.Redis)
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, list := range lists {
			if err := c.eachOf(ctx, name, list, func(ids []string) (int, error) { return do(name, list, ids) }); err != nil {
				return redisconn.Unavailable(err)
			}
		}
	}
	return nil
}

func listKey(name wire.QueueName, list string) string { return "asynq:{" + name.String() + "}:" + list }

// eachOf calls do with the tasks of the mailing in one list. What moves within it meanwhile may be left out.
func (c *mailing) eachOf(ctx context.Context, name wire.QueueName, list string, do func(ids []string) (left int, err error)) error {
	key, page := listKey(name, list), int64(mailingPage)
	if name.Bulk {
		page = mailingBulk
	}
	cursor := uint64(0)
	for at := int64(0); ; {
		var ids []string
		var err error
		var last bool
		switch list {
		case "active", "pending":
			ids, err = c.Redis.LRange(ctx, key, at, at+page-1).Result()
			last = int64(len(ids)) < page
		default:
			var members []string
			members, cursor, err = c.Redis.ZScan(ctx, key, cursor, "", page).Result()
			for i := 0; i < len(members); i += 2 {
				ids = append(ids, members[i])
			}
			last = cursor == 0
		}
		if err != nil {
			return err
		}
		found, err := c.of(ctx, name, ids)
		if err != nil {
			return err
		}
		left := 0
		if len(found) > 0 {
			if left, err = do(found); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		at += page - int64(left)
	}
}

// ofMailingScript returns those of the tasks ARGV[3] and what follows that belong to the mailing ARGV[2]. ARGV[1] is what the
// keys of tasks begin with, in the slot of KEYS[1].
var ofMailingScript = redis.NewScript(wire.LuaMailing + `
local found = {}
for i = 3, #ARGV do
  if mailingOf(redis.call("HGET", ARGV[1] .. ARGV[i], "msg")) == ARGV[2] then found[#found + 1] = ARGV[i] end
end
return found`)

func (c *mailing) of(ctx context.Context, name wire.QueueName, ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	queue := name.String()
	args := make([]any, 0, 2+len(ids))
	args = append(args, asynqbatch.TaskKey(queue, ""), c.name)
	for _, id := range ids {
		args = append(args, id)
	}
	return ofMailingScript.Run(ctx, c.Redis, []string{listKey(name, "pending")}, args...).StringSlice()
}

// cancelAll cancels tasks, some at the same time. It returns how many of them most likely left their list by that.
func (c *mailing) cancelAll(ctx context.Context, place wire.QueueName, ids []string) (left int, err error) {
	var all sync.WaitGroup
	gone, errs, turns := make([]bool, len(ids)), make([]error, len(ids)), make(chan struct{}, cancelsAtOnce)
	for i, id := range ids {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if place.Bulk {
				gone[i], errs[i] = c.cancelBulk(ctx, place, id)
			} else {
				gone[i], errs[i] = c.cancelOne(ctx, place, id)
			}
		})
	}
	all.Wait()
	for _, one := range gone {
		if one {
			left++
		}
	}
	return left, errors.Join(errs...)
}

func (c *mailing) cancelOne(ctx context.Context, place wire.QueueName, id string) (gone bool, err error) {
	again, err := c.Redis.HExists(ctx, asynqbatch.TaskKey(place.String(), id), wire.FieldCancelled).Result()
	if err != nil || again { // the worker that has it drops it
		return false, err
	}
	switch err := c.Task(ctx, place, id); {
	case err == nil:
		c.note([]string{id}, nil)
		return true, nil
	case errors.Is(err, mailer.ErrTooLate):
		c.note(nil, []string{id})
	case !errors.Is(err, mailer.ErrNoTask):
		return false, err
	}
	return false, nil
}

// note notes messages that were cancelled, and others that were not.
func (c *mailing) note(cancelled, late []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelled += len(cancelled)
	for _, id := range cancelled {
		delete(c.late, id)
	}
	for _, id := range late {
		c.late[id] = true
	}
}

var countMessagesScript = redis.NewScript(wire.LuaMessages + `
local msg = redis.call("HGET", KEYS[1], "msg")
return msg and messages(msg) or 0`)

func (c *mailing) messages(ctx context.Context, place wire.QueueName, task string) (int, error) {
	return countMessagesScript.Run(ctx, c.Redis, []string{asynqbatch.TaskKey(place.String(), task)}).Int()
}

// cancelBulkScript cancels the messages of a bulk task, whose keys are those of asynqbatch.ListKeys and whose ID is ARGV[1], as
// cancelInBulkScript does with one. The keys that say so begin with ARGV[2] and last for ARGV[3] seconds, and ARGV[4] are the events of the task, for where KEYS[8] has some. If nothing of the task
// is left to be done it is taken out of its list. It returns whether it was, and for each message a letter: c if it was cancelled, l if it
// is too late, and - for what was cancelled before or has left the task.
var cancelBulkScript = redis.NewScript(asynqbatch.TakeOutLua + wire.LuaMessages + events.Lua + `
local state, msg = unpack(redis.call("HMGET", KEYS[1], "state", "msg"))
if not state or not msg or state == "completed" or state == "archived" then return {0, ""} end
local keep, said, told, parts = state == "active", {}, {}, eventsParts(ARGV[4])
for i = 0, messages(msg) - 1 do
  local slot = "." .. i
  local wire, sent, cancelled = unpack(redis.call("HMGET", KEYS[1],
    "` + wire.FieldWire + `" .. slot, "` + wire.FieldSent + `" .. slot, "` + wire.FieldCancelled + `" .. slot))
  local letter = "-"
  if sent then
    if not string.find(sent, '"moved":true', 1, true) then letter = "l"
    elseif string.find(sent, '"rest":', 1, true) then keep = true end -- it is about to leave
  elseif wire then
    keep, letter = true, "l"
  elseif not cancelled then
    redis.call("HSET", KEYS[1], "` + wire.FieldCancelled + `" .. slot, "1")
    redis.call("SET", ARGV[2] .. ARGV[1] .. slot, "1", "EX", ARGV[3])
    letter, told[#told + 1] = "c", parts[i + 1]
  end
  said[#said + 1] = letter
end
if not keep then
  takeOut(ARGV[1], state)
  redis.call("DEL", KEYS[1])
end
eventsFollow(KEYS[8], table.concat(told))
return {keep and 0 or 1, table.concat(said)}`)

func (c *mailing) cancelBulk(ctx context.Context, place wire.QueueName, task string) (gone bool, err error) {
	queue := place.String()
	records, err := find.Records(ctx, c.Redis, task, place)
	if err != nil {
		return false, err
	}
	var told []byte
	if len(records) > 0 {
		told = events.OfTask(records[0].Type, task, records[0].Payload, 0, events.Cancelled, "")
	}
	answer, err := cancelBulkScript.Run(ctx, c.Redis, append(asynqbatch.ListKeys(queue, task), events.Key(queue)),
		task, wire.CancelledKey(queue, ""), c.heldSeconds(), told).Slice()
	if err != nil {
		return false, err
	}
	left, _ := answer[0].(int64)
	said, _ := answer[1].(string)
	var cancelled, late []string
	var indexes []int
	for i, letter := range said {
		switch letter {
		case 'c':
			indexes = append(indexes, i)
			cancelled = append(cancelled, wire.MessageID(task, i))
		case 'l':
			late = append(late, wire.MessageID(task, i))
		}
	}
	if len(indexes) > 0 && len(records) > 0 {
		history.Ended(ctx, c.Redis, queue, task, records[0].Type, records[0].Payload, history.Cancelled, "", indexes...)
	}
	c.note(cancelled, late)
	return left == 1, nil
}
