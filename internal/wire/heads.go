package wire

import (
	"bytes"
	"encoding/json"
)

// LuaHeads is a function for scripts of Redis that decide about tasks without reading their messages. heads(msg) takes
// asynq's record of a task of ours and returns what DecodeHead reads of each of its payloads, a line each; it returns
// nil for a task of another type, and for what it cannot read. Of a compressed payload that is one line.
const LuaHeads = `
local function typeOf(msg)
  if not msg or string.byte(msg, 1) ~= 10 then return nil end
  return string.sub(msg, 3, 2 + (string.byte(msg, 2) or 0))
end
local function heads(msg)
  local kind, list = typeOf(msg), {}
  if kind ~= "` + TaskType + `" and kind ~= "` + TaskTypeBulk + `" then return nil end
  local at = string.find(msg, '{"version":', 1, true)
  while at do
    local stop = string.find(msg, ',"message":', at, true)
    if not stop then return nil end
    list[#list + 1] = string.sub(msg, at, stop - 1)
    if kind == "` + TaskType + `" then break end
    local line = string.find(msg, "\n", stop, true)
    at = line and string.sub(msg, line + 1, line + 1) == "{" and line + 1
  end
  if #list == 0 then return nil end
  return table.concat(list, "\n")
end
`

// LuaMailing is a function for scripts of Redis: mailingOf(msg) takes asynq's record of a task and returns the name of the
// mailing that it belongs to, nil if there is none. All messages of a task belong to the same. What it looks for
// cannot stand inside a string of the payload, where quotes are escaped.
const LuaMailing = `
local function mailingOf(msg)
  if not msg or string.sub(msg, 3, 2 + #"` + TaskType + `") ~= "` + TaskType + `" then return nil end
  local at = string.find(msg, '{"version":', 1, true)
  local stop = at and string.find(msg, ',"message":', at, true)
  if not stop then return nil end
  return string.match(string.sub(msg, at, stop - 1), '"mailing":"([%w_-]+)"')
end
`

// LuaCompressed is a function for scripts of Redis: compressed(msg) reports whether asynq's record of a task of ours has a compressed
// payload.
const LuaCompressed = `
local function compressed(msg)
  local at = string.find(msg, '{"version":', 1, true)
  local stop = at and string.find(msg, ',"message":', at, true)
  return stop and string.sub(msg, stop, stop + 20) == ',"message":null}\n\040\181\047\253'
end
`

// LuaMessages is a function for scripts of Redis: messages(msg) takes asynq's record of a bulk task and returns how many messages
// that has.
const LuaMessages = `
local function messages(msg)
  local at = string.find(msg, '{"version":', 1, true)
  local stop = at and string.find(msg, ',"message":', at, true)
  local said = stop and string.match(string.sub(msg, at, stop - 1), '"messages":(%d+)$')
  if said then return tonumber(said) end
  local n, from = 1, 1
  while true do
    from = string.find(msg, '\n{"version":', from, true)
    if not from then return n end
    n, from = n + 1, from + 1
  end
end
`

// DecodeHead reads a line that LuaHeads has found: a payload without its message.
func DecodeHead(line string) (Meta, error) { return DecodeMeta([]byte(line + string(messageKey))) }

// Readable reports whether this program reads the version of payloads that s is of.
func (s *Meta) Readable() bool { return s.Version >= versionFirst && s.Version <= Newest }

// Newer reports whether the payload of a task, or one of its lines, is of a newer version than this program can read, and
// of which one. The first line of a compressed one has the newest of them all.
func Newer(payload []byte) (v int, ok bool) {
	for line := range bytes.Lines(payload) {
		version, known := versionOf(line)
		if known && version > Newest {
			return version, true
		}
		if known && version >= versionCompressed {
			return 0, false // what follows is no line
		}
	}
	return 0, false
}

// versionOf is the version of a line. It is false if that has none.
func versionOf(line []byte) (v int, ok bool) {
	if n := len(plainMeta); len(line) > n+1 && line[n+1] == ',' && line[n] >= '0' && line[n] <= '0'+Newest && string(line[:n]) == plainMeta {
		return int(line[n] - '0'), true
	}
	var head struct {
		Version lenient[int] `json:"version"`
	}
	if json.Unmarshal(line, &head) != nil {
		return 0, false
	}
	return head.Version.is, head.Version.is != 0
}
