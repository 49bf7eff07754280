package ratelimit

import "github.com/redis/go-redis/v9"

// All scripts reckon in microseconds of Redis's clock. What they know of a limit is one field of a hash:
//
//	spread evenly   the theoretical arrival time of GCRA: when the next one would come if all before had come evenly spaced
//	quota           for each twenty-fourth of the period how many there were: "bucket number bucket number ..."
//
// A field that is not there says nothing of what was sent before. Then there is no burst: what is spread evenly begins with
// one, and of a quota each twenty-fourth has its even part behind it.
//
// lua is what they have in common:
//
//	now                                       the time
//	limit(at, stored, factor, keep)           the limit whose five arguments begin at ARGV[at]: its field, "m" or "r", how many, the
//	                                          period and the burst. Spread ones have factor times their rate; of a quota the
//	                                          part keep is not to be used
//	room(l, x)                                how many there may be by the time x
//	due(l, n)                                 by when there may be n
//	take(l, n)                                so many are reserved
//	write(key, limits)                        writes what was reserved
const lua = `
local clock = redis.call("TIME")
local now = clock[1] * 1000000 + clock[2]
local parts, window = 24, tonumber(ARGV[1])
local function limit(at, stored, factor, keep)
  local l = {field = ARGV[at], of = ARGV[at + 1], most = tonumber(ARGV[at + 2]), per = tonumber(ARGV[at + 3]), burst = tonumber(ARGV[at + 4])}
  if l.burst > 0 then
    l.step = l.per / l.most / factor
    l.tat = math.max(tonumber(stored) or now + (l.burst - 1) * l.step, now)
    l.cap = l.burst
    return l
  end
  l.len = l.per / parts
  l.at, l.used, l.buckets = math.floor(now / l.len), 0, {}
  if stored then
    for bucket, n in string.gmatch(stored, "(%d+) (%d+)") do
      bucket, n = tonumber(bucket), tonumber(n)
      if bucket >= l.at - parts then l.buckets[#l.buckets + 1] = {bucket, n} end
    end
  else
    for i = 1, parts - 1 do
      l.buckets[i] = {l.at - parts + i - 1, math.floor(i * l.most / parts) - math.floor((i - 1) * l.most / parts)}
    end
  end
  for _, b in ipairs(l.buckets) do l.used = l.used + b[2] end
  l.cap = math.max(l.most - math.floor(l.most * keep), 1)
  return l
end
local function room(l, x)
  if l.step then return math.floor((x + window - l.tat) / l.step + l.burst + 0.000001) end
  return l.cap - l.used
end
local function due(l, n)
  if l.step then return l.tat + (n - l.burst) * l.step - window end
  local more = math.min(n, l.cap) - (l.cap - l.used)
  for _, b in ipairs(l.buckets) do
    if more <= 0 then break end
    more = more - b[2]
    if more <= 0 then return (b[1] + parts + 1) * l.len end
  end
  return now
end
local function take(l, n)
  l.changed = true
  if l.step then
    l.tat = l.tat + n * l.step
    return
  end
  local last = l.buckets[#l.buckets]
  if last and last[1] == l.at then last[2] = last[2] + n else l.buckets[#l.buckets + 1] = {l.at, n} end
  l.used = l.used + n
end
local function value(l)
  if l.step then return string.format("%.3f", l.tat) end
  local words = {}
  for _, b in ipairs(l.buckets) do words[#words + 1] = string.format("%d %d", b[1], b[2]) end
  return table.concat(words, " ")
end
local function write(key, limits, more)
  for _, l in ipairs(limits) do
    if l.changed then
      more[#more + 1] = l.field
      more[#more + 1] = value(l)
    end
  end
  if #more > 0 then redis.call("HSET", key, unpack(more)) end
  redis.call("PEXPIRE", key, ARGV[2])
end
`

// reserveScript reserves for messages, the first of a batch or all. ARGV: the window, how long to remember, how many messages there
// are, their recipients one after the other with blanks between, or "" if each counts one, how far ahead may be reserved, or 0,
// the share of that, the part of quotas that is kept, "1" if mail was accepted, how long after a change of the factor it is raised,
// by how much, "1" if what is not known was not sent, and then five for each limit.
//
// It returns how many messages are granted, in how many microseconds they may go, or, if there are none, to ask again, the
// time, the factor, and which limit it was that there are no more.
//
// What may go within the window may go now: so a round trip pays for several messages. Who has to wait asks again when that is
// a third of the window, so that nothing is lost if he comes late. What may not go yet is refused, and not
// put off: so nobody has to wait for those who have died. Ahead of their time are only messages of the queue of the highest weight, up to
// their share: others find the time taken then.
var reserveScript = redis.NewScript(lua + `
local n, ahead, share = tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
local fields, limits, more = {"factor", "changed", "share"}, {}, {}
for at = 12, #ARGV, 5 do fields[#fields + 1] = ARGV[at] end
local has = redis.call("HMGET", KEYS[1], unpack(fields))
local factor = tonumber(has[1] or 1)
if factor < 1 and ARGV[8] == "1" and now - tonumber(has[2] or 0) >= tonumber(ARGV[9]) then
  factor = math.min(factor + tonumber(ARGV[10]), 1)
  more = {"factor", string.format("%.4f", factor), "changed", string.format("%.0f", now)}
end
local unknown = ARGV[11] == "1" and "0" -- as if nothing was ever sent
for at = 12, #ARGV, 5 do limits[#limits + 1] = limit(at, has[#limits + 4] or unknown, factor, tonumber(ARGV[7])) end
local recipients, total = {}, 0
if ARGV[4] ~= "" then
  for r in string.gmatch(ARGV[4], "%d+") do
    recipients[#recipients + 1] = tonumber(r)
    total = total + r
  end
else
  total = n
end
local function cost(l, i, sum) if l.of == "r" then return sum end return i end
-- How many may go by the time x. One that is more than there ever may be goes when there is all the room.
local short = 0
local function fit(x)
  local rooms, sum = {}, 0
  for j, l in ipairs(limits) do rooms[j] = room(l, x) end
  for i = 1, n do
    local before = sum
    sum = sum + (recipients[i] or 1)
    for j, l in ipairs(limits) do
      local c = cost(l, i, sum)
      if c > rooms[j] and not (i == 1 and math.min(c, l.cap) <= rooms[j]) then
        short = j
        return i - 1, before
      end
    end
  end
  return n, sum
end
local granted, sum = fit(now)
local wait = 0
if granted == 0 then
  local at, spread = now, true
  for _, l in ipairs(limits) do
    local first, all = cost(l, 1, recipients[1] or 1), cost(l, n, total)
    if l.step then
      local chunk = math.min(math.max(math.floor(window / 3 / l.step), math.min(first, l.cap)), all)
      at = math.max(at, due(l, chunk))
    else
      local d = due(l, first)
      if d > now then at, spread = math.max(at, d), false end
    end
  end
  wait = at - now
  local mine = math.max(tonumber(has[3]) or 0, now)
  if ahead > 0 and spread and wait <= ahead and mine <= now + ahead then
    granted, sum = fit(at)
    local used = 0
    for _, l in ipairs(limits) do
      if l.step then used = math.max(used, cost(l, granted, sum) * l.step) end
    end
    more[#more + 1] = "share"
    more[#more + 1] = string.format("%.0f", mine + used / share)
  end
end
if granted > 0 then
  for _, l in ipairs(limits) do take(l, cost(l, granted, sum)) end
end
if granted > 0 or #more > 0 then write(KEYS[1], limits, more) end
return {granted, math.ceil(wait), now, string.format("%.4f", factor), short}`)

// slowScript halves the factor, down to ARGV[3], but not twice within ARGV[2]. It returns the time and the factor.
var slowScript = redis.NewScript(`
local clock = redis.call("TIME")
local now = clock[1] * 1000000 + clock[2]
local factor, slowed = unpack(redis.call("HMGET", KEYS[1], "factor", "slowed"))
factor = tonumber(factor or 1)
if now - tonumber(slowed or 0) >= tonumber(ARGV[2]) then
  factor = math.max(factor / 2, tonumber(ARGV[3]))
  local at = string.format("%.0f", now)
  redis.call("HSET", KEYS[1], "factor", string.format("%.4f", factor), "changed", at, "slowed", at)
  redis.call("PEXPIRE", KEYS[1], ARGV[1])
end
return {now, string.format("%.4f", factor)}`)

// domainsScript reserves for messages by the domains of their recipients, KEYS. ARGV: the window, how long to remember, how far
// ahead may be reserved, the longest delay, for each domain how many limits it has and then five for each of these, and then
// for each message the numbers of its domains with blanks between.
//
// It returns for each message in how many microseconds it may go, or, below zero, how long it is to be put off. Those are
// spaced as they may go, so that they do not come back all at once.
var domainsScript = redis.NewScript(lua + `
local ahead, longest = tonumber(ARGV[3]), tonumber(ARGV[4])
local domains, at, answers = {}, 5, {}
for d, key in ipairs(KEYS) do
  local count, fields, limits = tonumber(ARGV[at]), {"line"}, {}
  for i = 1, count do fields[i + 1] = ARGV[at + 1 + (i - 1) * 5] end
  local has = redis.call("HMGET", key, unpack(fields))
  for i = 1, count do limits[i] = limit(at + 1 + (i - 1) * 5, has[i + 1], 1, 0) end
  domains[d] = {limits = limits, line = tonumber(has[1]) or 0, more = {}}
  at = at + 1 + count * 5
end
for i = at, #ARGV do
  local start, mine = now, {}
  for d in string.gmatch(ARGV[i], "%d+") do
    local domain = domains[tonumber(d)]
    mine[#mine + 1] = domain
    for _, l in ipairs(domain.limits) do
      if l.step or room(l, now) < 1 then start = math.max(start, due(l, 1)) end
    end
  end
  if start - now <= ahead then
    for _, domain in ipairs(mine) do
      for _, l in ipairs(domain.limits) do take(l, 1) end
    end
    answers[#answers + 1] = math.ceil(start - now)
  else
    local back = start
    for _, domain in ipairs(mine) do
      local step = 0
      for _, l in ipairs(domain.limits) do step = math.max(step, l.step or 0) end
      domain.line = math.min(math.max(domain.line, start) + step, now + longest)
      domain.late = true
      back = math.max(back, domain.line)
    end
    answers[#answers + 1] = -math.ceil(math.min(back - now, longest))
  end
end
for d, key in ipairs(KEYS) do
  local domain = domains[d]
  local more = {}
  if domain.late then more = {"line", string.format("%.0f", domain.line)} end
  write(key, domain.limits, more)
end
return answers`)

// leaseScript says how many connections a worker may have. The hash has for each worker how many it has, or may have, how many it
// would have, and until when that holds. ARGV: the worker, how many it has open, how many it would have, how many all may have,
// for how long that is to hold, in milliseconds, and "1" if it has no use for them just now.
//
// Where another one has fewer than its even part and would have more, each is to come down to that, and at least one; one without
// use for them is to close all. What a worker has open counts until it says that it has closed it.
var leaseScript = redis.NewScript(`
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me, held, want, most, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local all, others, wanting, list = redis.call("HGETALL", KEYS[1]), 0, 0, {}
local idle = ARGV[6] == "1"
if want > 0 and not idle then wanting = 1 end
for i = 1, #all, 2 do
  local has, wants, ends = string.match(all[i + 1], "^(%d+) (%d+) (%d+)$")
  if tonumber(ends) <= now then
    redis.call("HDEL", KEYS[1], all[i])
  elseif all[i] ~= me then
    has, wants = tonumber(has), tonumber(wants)
    others = others + has
    if wants > 0 then wanting = wanting + 1 end
    list[#list + 1] = {has, wants}
  end
end
local fair, allowed = math.max(math.floor(most / math.max(wanting, 1)), 1), want
for _, o in ipairs(list) do
  if o[1] < math.min(o[2], fair) then allowed = idle and 0 or math.min(allowed, fair) end
end
allowed = math.max(math.min(allowed, most - others), 0)
if want == 0 and held == 0 then
  redis.call("HDEL", KEYS[1], me)
else
  redis.call("HSET", KEYS[1], me, string.format("%d %d %d", math.max(held, allowed), idle and 0 or want, now + ttl))
  redis.call("PEXPIRE", KEYS[1], 2 * ttl)
end
return {allowed, others}`)
