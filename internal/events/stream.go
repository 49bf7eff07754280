// Package events keeps what happens to messages, for each of their recipients, until others have read it: queued, sent, delayed,
// failed, cancelled.
//
// Each queue has a stream of Redis in its place (its slot). So the script that queues, ends or retries a task writes the events in
// the same round trip, and there is no event without what it tells, nor that without its event. What one script writes is one entry
// of the stream: Redis takes little more for an event than its bytes, however many a script has.
//
//	mailpouch:{queue}:events                a stream: entries with one field, the events of a script, one behind the other
//	mailpouch:{queue}:events:state          a hash: how many bytes the stream has, and may have, and how many events went unread
//	mailpouch:{queue}:events:reader:GROUP   who reads the stream for a group now
//	mailpouch:events                        a hash: since when a group reads
//	mailpouch:events:kept                   there while some worker has looked at how much there is
//
// A message goes on whether its events can be written or not. The streams grow to their size, and then the oldest entries go. Those that
// not every group has acknowledged are counted.
package events

import (
	"strconv"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// Config is how much is kept. The zero value keeps nothing.
type Config struct {
	Size int64 // bytes in Redis that all events may take, about
}

// On reports whether events are written.
func (c Config) On() bool { return c.Size > 0 }

// Key is the stream of a queue of asynq's. It is in the slot of the queue.
func Key(queue string) string { return "mailpouch:{" + queue + "}:events" }

func stateKey(queue string) string { return Key(queue) + ":state" }

func readerKey(queue, group string) string { return Key(queue) + ":reader:" + group }

// field is the one that an entry has.
const field = "e"

// The fields of the state.
const (
	fieldBytes  = "bytes"  // of the stream
	fieldSize   = "size"   // that it may have
	fieldUnread = "unread" // events that went before all groups had acknowledged them, or any if there is none
)

// entryOverhead is what Redis takes for an entry beside its bytes, about.
const entryOverhead = 24

// What OfTask begins with, for tasks of one message and of many.
const (
	oneMessage   = "1"
	manyMessages = "n"
)

// mostTrimmed is how many entries a script drops at most: Redis does nothing else meanwhile.
const mostTrimmed = 100

// Lua defines functions for scripts whose keys are in the slot of a queue:
//
//	eventsAdd(key, data, most)   writes events, and drops the oldest if there are more than so many bytes. An error of Redis, such
//	                             as that it is full, is no error of the script
//	eventsPut(key, data, most)   the same with a task that comes into the queue. If it brings no events it is noted that so much is kept
//	                             of those that it will have, for eventsFollow
//	eventsFollow(key, data)      eventsAdd for who does not know whether events are kept: only if some are, and as many
//	eventsTrim(key, most)        drops the oldest events until there are at most so many bytes, or some have gone, and returns how many
//	                             bytes are left
//	eventsParts(data)            the events of a task's messages (OfTask), for each message, and what the fields of the first one's
//	                             record end in, and of the others
//	eventsLeft(task, data)       of the events of a task's messages those of messages that have not ended or left yet. task is its
//	                             record
var Lua = `
local function eventsUnread(key, entries, n)
  local unread, groups = {}, redis.pcall("XINFO", "GROUPS", key)
  if groups.err then groups = {} end
  for i = 1, n do unread[i] = #groups == 0 end
  for _, group in ipairs(groups) do
    local fields, pending, ids = {}, {}, {}
    for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
    for _, one in ipairs(redis.call("XPENDING", key, fields.name, entries[1][1], entries[n][1], n)) do
      pending[one[1]] = true
      ids[#ids + 1] = one[1]
    end
    local ms, seq = string.match(fields["last-delivered-id"], "(%d+)-(%d+)")
    ms, seq = tonumber(ms), tonumber(seq)
    for i = 1, n do
      local atMs, atSeq = string.match(entries[i][1], "(%d+)-(%d+)")
      atMs, atSeq = tonumber(atMs), tonumber(atSeq)
      if pending[entries[i][1]] or atMs > ms or atMs == ms and atSeq > seq then unread[i] = true end
    end
    if #ids > 0 then redis.call("XACK", key, fields.name, unpack(ids)) end
  end
  local count = 0
  for i = 1, n do
    local data, at = entries[i][2][2], 1
    while unread[i] and at + 5 <= #data do
      local a, b, c, d, e, f = string.byte(data, at, at + 5)
      count = count + e * 256 + f
      at = at + math.max(((a * 256 + b) * 256 + c) * 256 + d, 6)
    end
  end
  return count
end
local function eventsTrim(key, most)
  local state = key .. ":state"
  local bytes = tonumber(redis.call("HGET", state, "` + fieldBytes + `") or 0)
  local entries, n = redis.call("XRANGE", key, "-", "+", "COUNT", ` + strconv.Itoa(mostTrimmed) + `), 0
  while n < #entries and bytes > most do
    n = n + 1
    bytes = bytes - #entries[n][2][2] - ` + strconv.Itoa(entryOverhead) + `
  end
  if n == #entries and redis.call("XLEN", key) == n then bytes = 0 end
  if n > 0 then
    local unread = eventsUnread(key, entries, n)
    local ms, seq = string.match(entries[n][1], "(%d+)-(%d+)")
    redis.call("XTRIM", key, "MINID", string.format("%s-%d", ms, seq + 1))
    if unread > 0 then redis.call("HINCRBY", state, "` + fieldUnread + `", unread) end
  end
  bytes = math.max(bytes, 0)
  redis.call("HSET", state, "` + fieldBytes + `", bytes)
  return bytes
end
local function eventsWrite(key, data, most)
  redis.call("XADD", key, "*", "` + field + `", data)
  local size = #data + ` + strconv.Itoa(entryOverhead) + `
  local bytes = redis.call("HINCRBY", key .. ":state", "` + fieldBytes + `", size)
  if bytes == size or bytes > most then redis.call("HSET", key .. ":state", "` + fieldSize + `", most) end
  if bytes > most then eventsTrim(key, most - most / 50) end
end
local function eventsAdd(key, data, most)
  if data ~= "" then pcall(eventsWrite, key, data, tonumber(most)) end
end
local function eventsPut(key, data, most)
  if data == "" and tonumber(most) > 0 then redis.pcall("HSETNX", key .. ":state", "` + fieldSize + `", most) end
  eventsAdd(key, data, most)
end
local function eventsFollow(key, data)
  if data == "" then return end
  local most = redis.pcall("HGET", key .. ":state", "` + fieldSize + `")
  if type(most) == "string" then eventsAdd(key, data, most) end
end
local function eventsParts(data)
  local parts, slots, at = {}, {}, 2
  while at + 3 <= #data do
    local a, b, c, d = string.byte(data, at, at + 3)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    parts[#parts + 1] = string.sub(data, at + 4, at + 3 + size)
    slots[#parts] = string.sub(data, 1, 1) == "` + manyMessages + `" and "." .. #parts - 1 or ""
    at = at + 4 + size
  end
  return parts, slots
end
local function eventsLeft(task, data)
  local left, parts, slots = {}, eventsParts(data)
  for i, slot in ipairs(slots) do
    local sent, cancelled = unpack(redis.call("HMGET", task, "` + wire.FieldSent + `" .. slot, "` + wire.FieldCancelled + `" .. slot))
    if not cancelled and (not sent or string.find(sent, '"rest":', 1, true)) then left[#left + 1] = parts[i] end
  end
  return table.concat(left)
end
`
