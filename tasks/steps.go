package tasks

import (
	"context"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A worker writes into the record of a task, which asynq keeps, what it does with each message of it. All of that goes
// through the steps below: each is a function of Lua that first looks whether the record is there at all, and whether
// the task is still this worker's where that matters. So what comes late finds nothing to write into, and no record
// comes back of a task that has ended elsewhere.
//
//	ask        may the message be sent?
//	mark       and from now on it may have been: too late to cancel
//	accepted   the relay has it: end the task, or write an entry
//	release    take the mark back: the relay has taken nothing
//	decide     the message ends, or moves on, without being on the wire: too late to cancel
//	leave      the same for a message that leaves its bulk task, with how it goes on
const (
	stepAsk      = "ask"
	stepMark     = "mark"
	stepAccepted = "accepted"
	stepRelease  = "release"
	stepDecide   = "decide"
	stepLeave    = "leave"
)

// What a step may say of a message instead of nothing. With sayGone the task is not in Redis.
const (
	saySent      = "sent:" // and the entry
	sayCancelled = "cancelled"
	sayBegun     = "begun" // at_most_once: another try has begun, and left no word of its end
	sayLost      = "lost"  // the task is another worker's
	sayGone      = "gone"
)

// look is how ask, mark, decide and leave begin. Their first arguments are what the message's fields end in, and the key
// that is there if it was cancelled.
const look = `
  if not task.there then
    if redis.call("EXISTS", args[2]) == 1 then return "` + sayCancelled + `" end
    return "` + sayGone + `"
  end
  if not task.ours then return "` + sayLost + `" end
  local sent, begun, cancelled = unpack(redis.call("HMGET", task.key,
    "` + wire.FieldSent + `" .. args[1], "` + wire.FieldBegun + `" .. args[1], "` + wire.FieldCancelled + `" .. args[1]))
  if sent then return "` + saySent + `" .. sent end
  if cancelled then return "` + sayCancelled + `" end`

// lookOnce is look for a try that has a token, the fourth argument, if the message is at_most_once.
const lookOnce = look + `
  if begun and args[4] ~= "" and begun ~= args[4] then return "` + sayBegun + `" end`

// writeSent writes the entry args[2] of an accepted message, also if the task is another worker's by now, if it is the task
// with the generation args[3] still.
const writeSent = `
  local sent = "` + wire.FieldSent + `" .. args[1]
  local wire = redis.call("HGET", task.key, "` + wire.FieldWire + `" .. args[1]) or ""
  if task.ours then redis.call("HSET", task.key, sent, args[2])
  elseif string.sub(wire, 1, #args[3]) == args[3] then redis.call("HSETNX", task.key, sent, args[2]) end`

// steps are the functions, by their names.
func steps() map[string]string {
	return map[string]string{
		stepAsk: lookOnce + `
  return ""`,
		stepMark: lookOnce + `
  redis.call("HSET", task.key, "` + wire.FieldWire + `" .. args[1], args[3])
  if args[4] ~= "" then redis.call("HSET", task.key, "` + wire.FieldBegun + `" .. args[1], args[4]) end
  renew(task)
  return ""`,
		stepAccepted: `
  if not task.there then return "` + sayGone + `" end
  if args[4] == "1" and task.ours and task.ends and finish(task) then return "" end` + writeSent + `
  return ""`,
		stepRelease: `
  for name, token in pairs({["` + wire.FieldWire + `"] = args[2], ["` + wire.FieldBegun + `"] = args[3]}) do
    if token ~= "" and redis.call("HGET", task.key, name .. args[1]) == token then redis.call("HDEL", task.key, name .. args[1]) end
  end
  return ""`,
		stepDecide: look + `
  redis.call("HSET", task.key, "` + wire.FieldWire + `" .. args[1], "decided")
  return ""`,
		stepLeave: look + `
  redis.call("HSET", task.key, "` + wire.FieldSent + `" .. args[1], args[3])
  return ""`,
	}
}

// records are the records of tasks: an asynqbatch.Client.
type records interface {
	Do(ctx context.Context, wanted []asynqbatch.Step) []asynqbatch.Answer
	Sure(key string) bool
}
