// Package history keeps a short record of each message whose way has ended: what became of it, when, and what the relay
// said. It answers "was it sent?" after the task is gone.
//
// Records are packed one behind the other into the entries of a Redis list, one list for each queue and hour, in the
// place (the slot) of the queue. So the script that ends a task writes its record in the same round trip, an hour goes
// as a whole when its time is up, and a record takes little more than its bytes. There is no index: who looks for a
// record has Redis look through the lists, a piece at a time, newest first. A person asks seldom, and every mail would
// pay for an index.
//
//	mailpouch:{queue}:history         a hash: the bytes of each hour, and of all
//	mailpouch:{queue}:history:492013  a list: the records of that hour, counted from 1970
//	mailpouch:history                 a hash: for how long and how much is kept, since when, and the key of the installation,
//	                                  with which recipients are made unrecognisable
//
// A message ends whether its record can be written or not. What ends has freed more of Redis than its record takes, so the
// history fills no Redis: it grows to its size, and the oldest goes first.
package history

import (
	"strconv"
	"time"
)

// Config is how long and how much is kept. The zero value keeps nothing.
type Config struct {
	For  time.Duration // how long a record is kept, in whole hours rounded up; none is if not positive
	Size int64         // bytes in Redis that all records may take, about
}

// On reports whether records are kept.
func (c Config) On() bool { return c.For > 0 && c.Size > 0 }

// hour is how long one list is written to.
const hour = time.Hour

// hours is for how many whole hours records are kept, beside the current one.
func (c Config) hours() int { return int((c.For + hour - 1) / hour) }

// Args are the arguments of historyKeep in Lua: the key of the queue's history, for how many hours, and how many bytes.
func (c Config) Args(queue string) (key string, hours int, size int64) {
	return Key(queue), c.hours(), c.Size
}

// Key is the hash of a queue's history. It is in the slot of the queue.
func Key(queue string) string { return "mailpouch:{" + queue + "}:history" }

func listKey(queue string, at int64) string { return Key(queue) + ":" + strconv.FormatInt(at, 10) }

// The fields of the hash beside the hours.
const (
	fieldBytes   = "bytes"   // of all hours
	fieldTrimmed = "trimmed" // records of what has ended before that, in seconds, may have gone before their time
)

// entryOverhead and listOverhead are what Redis takes for an entry of a list, and for a list, beside the entry's bytes,
// about.
const (
	entryOverhead = "6"
	listOverhead  = "150"
)

// Entries are counted one by one until a list has countedEach, so that many small lists do not add up to much that is not
// counted, and then countedTogether at once: counting takes as long as writing.
const (
	countedEach     = "128"
	countedTogether = "32"
)

// Lua defines functions for scripts whose keys are in the slot of a queue:
//
//	historyKeep(key, records, now, hours, most)  writes records, in the hour of that time. An error of Redis, such as that
//	                                             it is full, is no error of the script
//	historyTrim(key, most, rounds)               drops the oldest records until there are at most so many bytes
const Lua = `
local function historyTime(entry)
  local seconds, digit = 0, 1
  for i = 4, 8 do
    seconds = seconds + string.byte(entry, i) % 128 * digit
    digit = digit * 128
  end
  return string.format("%d", seconds)
end
local function historyTrim(key, most, rounds)
  local bytes = tonumber(redis.call("HGET", key, "` + fieldBytes + `") or 0)
  if bytes <= most then return bytes end
  local hours = {}
  for _, field in ipairs(redis.call("HKEYS", key)) do
    if tonumber(field) then hours[#hours + 1] = tonumber(field) end
  end
  table.sort(hours)
  for i, at in ipairs(hours) do
    local name = string.format("%d", at)
    local list, size = key .. ":" .. name, tonumber(redis.call("HGET", key, name))
    local there = redis.call("EXISTS", list) == 1
    if not there or i < #hours and bytes - size >= most then
      redis.call("DEL", list)
      redis.call("HDEL", key, name)
      if there then redis.call("HSET", key, "` + fieldTrimmed + `", (at + 1) * 3600) end
      there, bytes = false, bytes - size
    end
    local last
    while there and bytes > most and rounds > 0 do
      local entry = redis.call("LPOP", list)
      if not entry then
        redis.call("HDEL", key, name)
        break
      end
      last, rounds = entry, rounds - 1
      redis.call("HINCRBY", key, name, -(#entry + ` + entryOverhead + `))
      bytes = bytes - #entry - ` + entryOverhead + `
    end
    if last then redis.call("HSET", key, "` + fieldTrimmed + `", historyTime(last)) end
    if bytes <= most or rounds <= 0 then break end
  end
  redis.call("HSET", key, "` + fieldBytes + `", math.max(bytes, 0))
  return bytes
end
local function historyCount(key, list, name, n, hours, most)
  local size = 0
  for _, entry in ipairs(redis.call("LRANGE", list, -n, -1)) do size = size + #entry + ` + entryOverhead + ` end
  if n == 1 and redis.call("HEXISTS", key, name) == 0 then
    size = size + ` + listOverhead + `
    redis.call("EXPIRE", list, (hours + 1) * 3600)
    for _, field in ipairs(redis.call("HKEYS", key)) do
      local old = tonumber(field)
      if old and old < tonumber(name) - hours and redis.call("EXISTS", key .. ":" .. field) == 0 then
        redis.call("HINCRBY", key, "` + fieldBytes + `", -redis.call("HGET", key, field))
        redis.call("HDEL", key, field)
      end
    end
  end
  redis.call("HINCRBY", key, name, size)
  local all = redis.call("HINCRBY", key, "` + fieldBytes + `", size)
  redis.call("EXPIRE", key, (hours + 2) * 3600)
  if all > most then historyTrim(key, most, 100) end
end
local function historyWrite(key, records, now, hours, most)
  local name = string.format("%d", math.floor(now / 3600))
  local list = key .. ":" .. name
  local n = redis.call("RPUSH", list, records)
  if n <= ` + countedEach + ` then
    historyCount(key, list, name, 1, hours, most)
  elseif n % ` + countedTogether + ` == 0 then
    historyCount(key, list, name, ` + countedTogether + `, hours, most)
  end
end
local function historyKeep(key, records, now, hours, most)
  pcall(historyWrite, key, records, tonumber(now), tonumber(hours), tonumber(most))
end
`
