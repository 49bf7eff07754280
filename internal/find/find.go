// Package find finds tasks in asynq's queues: by their ID, or by a text that is in their payload. For texts there is no index: Redis
// looks through the tasks itself, in small pieces, so that it has time for others. That is for the questions of people.
package find

import (
	"bytes"
	"context"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Lists are the lists of a queue of asynq's that have its tasks, but those that have completed.
func lists(queue string) []string {
	prefix := "asynq:{" + queue + "}:"
	return []string{prefix + "pending", prefix + "scheduled", prefix + "retry", prefix + "active", prefix + "archived", wire.DeadKey(queue)}
}

// findScript looks through the list, or the sorted set, KEYS[1], from ARGV[1] on, for tasks that have the text ARGV[4] in their
// message, in any letter case: so many as ARGV[2] says, or until it has seen a few hundred kilobytes. ARGV[3] is what the keys of
// tasks begin with. It returns how many it has looked at, and the IDs, each with nothing or with a message that is compressed.
var findScript = redis.NewScript(wire.LuaCompressed + `
local range = redis.call("TYPE", KEYS[1]).ok == "list" and "LRANGE" or "ZRANGE"
local found, seen = {0}, 0
for n, id in ipairs(redis.call(range, KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  local msg = redis.call("HGET", ARGV[3] .. id, "msg")
  found[1] = n
  if msg then
    seen = seen + #msg
    if compressed(msg) then
      found[#found + 1] = id
      found[#found + 1] = msg
    elseif string.find(string.lower(msg), ARGV[4], 1, true) then
      found[#found + 1] = id
      found[#found + 1] = ""
    end
  end
  if seen > 300000 then break end
end
return found`)

// atOnce is how many tasks a script looks at, at most.
const atOnce = 200

// Tasks calls found with the ID of each task of a queue that has a text in its payload, in any letter case. What moves meanwhile may
// be missed, or found twice. An error of found ends the search.
func Tasks(ctx context.Context, client redis.UniversalClient, queue, text string, found func(id string) error) error {
	text = strings.ToLower(text)
	var codec wire.Codec
	for _, key := range lists(queue) {
		for at, looked := int64(0), int64(1); looked > 0; at += looked {
			answer, err := findScript.Run(ctx, client, []string{key}, at, atOnce, "asynq:{"+queue+"}:t:", text).Slice()
			if err != nil {
				return redisconn.Unavailable(err)
			}
			looked, _ = answer[0].(int64)
			for i := 1; i+1 < len(answer); i += 2 {
				id, _ := answer[i].(string)
				if message, _ := answer[i+1].(string); message != "" && !has(&codec, message, text) {
					continue
				}
				if err := found(id); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// has reports whether the message of a task, which is compressed, has a text in lower case. What cannot be read has it: whoever asks sees that.
func has(codec *wire.Codec, message, text string) bool {
	m, ok := asynqbatch.ReadMessage(message)
	data, err := codec.Unpack(m.Payload)
	return !ok || err != nil || bytes.Contains(bytes.ToLower(data), []byte(text))
}
