package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// LuaHeads is a function for scripts of Redis that decide about tasks without reading their messages. heads(msg) takes
// asynq's record of a task of ours and returns what DecodeHead reads of each of its payloads, a line each; it returns
// nil for a task of another type, and for what it cannot read.
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

// DecodeHead reads a line that LuaHeads has found: a payload without its message.
func DecodeHead(line string) (Meta, error) { return DecodeMeta([]byte(line + string(messageKey))) }

// Current reports whether this program's version of payloads is the one that s is of.
func (s *Meta) Current() bool { return s.Version == version }

// Newer reports whether the payload of a task, or one of its lines, is of a newer version than this program can read, and
// of which one.
func Newer(payload []byte) (v int, ok bool) {
	for line := range bytes.Lines(payload) {
		if bytes.HasPrefix(line, currentHead) {
			continue
		}
		var head struct {
			Version lenient[int] `json:"version"`
		}
		if json.Unmarshal(line, &head) == nil && head.Version.is > version {
			return head.Version.is, true
		}
	}
	return 0, false
}

// currentHead is how each payload of this program begins.
var currentHead = fmt.Appendf(nil, `{"version":%d,`, version)
