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
//	ask        is anything known of messages of a task?
//	look       may the message be sent? Is its queue, or its mailing, paused?
//	mark       and from now on it may have been: too late to cancel
//	accepted   the relay has it: end the task, or write an entry
//	next       accepted, and mark of another message of the same task: one look, and one command that writes
//	release    take the mark back: the relay has taken nothing
//	decide     the message ends, or moves on, without being on the wire: too late to cancel
//	leave      the same for a message that leaves its bulk task, with how it goes on
//	record     write the notes of a message that was sent before, if they were not, or of any other
const (
	stepAsk      = "ask"
	stepLook     = "look"
	stepMark     = "mark"
	stepAccepted = "accepted"
	stepNext     = "next"
	stepRelease  = "release"
	stepDecide   = "decide"
	stepLeave    = "leave"
	stepRecord   = "record"
)

// What a step may say of a message instead of nothing. With sayGone the task is not in Redis.
const (
	saySent      = "sent:" // and the entry
	sayCancelled = "cancelled"
	sayBegun     = "begun" // at_most_once: another try has begun, and left no word of its end
	sayLost      = "lost"  // the task is another worker's
	sayGone      = "gone"
	sayMore      = "more"    // there is something to say: look
	sayPaused    = "paused:" // and what is: the queue, or the mailing
)

// lookFirst is how mark, decide and leave begin. Their first arguments are what the message's fields end in, and the
// key that is there if it was cancelled.
const lookFirst = `
  local has = look(task, "` + wire.FieldSent + `" .. args[1], "` + wire.FieldCancelled + `" .. args[1], "` + wire.FieldBegun + `" .. args[1])
  if not task.there then
    if call("EXISTS", args[2]) == 1 or deleted(task) then return "` + sayCancelled + `" end
    return "` + sayGone + `"
  end
  if not task.ours then return "` + sayLost + `" end
  if has[3] then return "` + saySent + `" .. has[3] end
  if has[4] then return "` + sayCancelled + `" end`

// lookOnce is lookFirst for a try that has a token, the fourth argument, if the message is at_most_once. The fifth one
// is the message's mailing, if it has one.
const lookOnce = lookFirst + `
  if has[5] and args[4] ~= "" and has[5] ~= args[4] then return "` + sayBegun + `" end`

// markFirst is how mark begins. It may have been marked before, when it was not written yet.
const markFirst = lookOnce + `
  local wire = "` + wire.FieldWire + `" .. args[1]
  local what = paused(args[5])
  if what then
    if call("HGET", task.key, wire) == args[3] then call("HDEL", task.key, wire) end
    if has[5] and has[5] == args[4] then call("HDEL", task.key, "` + wire.FieldBegun + `" .. args[1]) end
    return "` + sayPaused + `" .. what
  end`

// touchedFields are those that say what has become of a message.
func touchedFields() []string { return []string{wire.FieldSent, wire.FieldCancelled, wire.FieldBegun} }

// steps are the functions, by their names.
func steps() map[string]string {
	return map[string]string{
		// The arguments are all that the fields of the messages of a task end in.
		stepAsk: `
  local fields = {}
  for i = 1, #args do
    fields[3 * i - 2] = "` + wire.FieldSent + `" .. args[i]
    fields[3 * i - 1] = "` + wire.FieldCancelled + `" .. args[i]
    fields[3 * i] = "` + wire.FieldBegun + `" .. args[i]
  end
  local has = look(task, unpack(fields))
  if not task.ours or halts() then return "` + sayMore + `" end
  for i = 3, #args * 3 + 2 do if has[i] then return "` + sayMore + `" end end
  return ""`,
		stepLook: lookOnce + `
  local what = paused(args[5])
  if what then return "` + sayPaused + `" .. what end
  return ""`,
		stepMark: markFirst + `
  if args[4] == "" then call("HSET", task.key, wire, args[3])
  else call("HSET", task.key, wire, args[3], "` + wire.FieldBegun + `" .. args[1], args[4]) end
  renew(task)
  return ""`,
		// An entry is written also if the task is another worker's by now, if it is that of the generation args[3] still.
		stepAccepted: `
  local has = {}
  if task.events then has = look(task, "` + wire.FieldSent + `" .. args[1]) else look(task) end
  keep(task)
  if not task.there then
    if deleted(task) then tell(task) end
    return "` + sayGone + `"
  end
  if not has[3] then tell(task) end
  if args[4] == "1" and task.ours and task.ends and finish(task) then return "" end
  local sent, wire = "` + wire.FieldSent + `" .. args[1], "` + wire.FieldWire + `" .. args[1]
  if task.ours then call("HSET", task.key, sent, args[2])
  elseif string.sub(call("HGET", task.key, wire) or "", 1, #args[3]) == args[3] then call("HSETNX", task.key, sent, args[2]) end
  return ""`,
		// The first three arguments are those of accepted, and the others those of mark without the token of at_most_once.
		stepNext: `
  local before, args = args, {args[4], args[5], args[6], "", args[7]}
  local function doubt()` + markFirst + `
  end
  local said = doubt()
  if said then
    steps["` + stepAccepted + `"](task, {before[1], before[2], before[3], ""})
    return said
  end
  local new = call("HSET", task.key, "` + wire.FieldSent + `" .. before[1], before[2], "` + wire.FieldWire + `" .. args[1], args[3])
  if new > 0 then tell(task) end -- else the script is asked for again, for its answer was lost
  renew(task)
  return ""`,
		stepRelease: `
  for name, token in pairs({["` + wire.FieldWire + `"] = args[2], ["` + wire.FieldBegun + `"] = args[3]}) do
    if token ~= "" and call("HGET", task.key, name .. args[1]) == token then call("HDEL", task.key, name .. args[1]) end
  end
  task.answer = "1"
  return ""`,
		// The second argument says when.
		stepRecord: `
  look(task)
  if args[2] == "` + recordAlways + `" or call("HDEL", task.key, "` + wire.FieldUnrecorded + `" .. args[1]) == 1
    or args[2] == "` + recordLate + `" and task.there and call("HEXISTS", task.key, "` + wire.FieldSent + `" .. args[1]) == 0 then
    keep(task)
    tell(task)
  end
  return ""`,
		stepDecide: lookFirst + `
  call("HSET", task.key, "` + wire.FieldWire + `" .. args[1], "decided")
  return ""`,
		stepLeave: lookFirst + `
  call("HSET", task.key, "` + wire.FieldSent + `" .. args[1], args[3])
  tell(task)
  return ""`,
	}
}

// When the step record writes notes.
const (
	recordAlways  = "always"
	recordMissing = "missing" // if an entry says that they were not written when it was
	recordLate    = "late"    // or if there is no entry: it could not be told whether Redis was told
)

// records are the records of tasks: an asynqbatch.Client.
type records interface {
	Do(ctx context.Context, wanted []asynqbatch.Step) []asynqbatch.Answer
	Sure(key string) bool
	Fresh(key string) bool
}
