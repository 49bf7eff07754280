package asynqbatch

import (
	"context"
	"crypto/sha1" //nolint:gosec // as Redis's scripts have it
	"encoding/hex"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// What Reschedule answers, but for "replaced:" and the ID of the task that has taken the place of this one.
const (
	Rescheduled = "scheduled" // it waits for its new time
	DueNow      = "pending"   // its new time has come: it waits for a worker
	NotThere    = "none"      // there is no such task, or it was cancelled
	Changed     = "changed"   // its record is not the one that was read: read it again
	Moving      = "decided"   // it is about to move, or to become a dead letter
	TooLate     = "late"      // a worker has it, it is to be tried again, or it has ended
)

// rescheduleScript gives the task ARGV[1], whose message has the SHA-1 ARGV[2], the message ARGV[3] and the time ARGV[4], in
// seconds. KEYS are ListKeys, and behind them wire.AsideKey of its mailing, if it has one. Only what waits changes: what a worker
// has is the worker's, whose copy of the message has the old time. So no owner is compared, for a task that waits has none. If
// the reply was lost and it is asked again, the message is there, and the answer is the same.
var rescheduleScript = redis.NewScript(TakeOutLua + `
local state, msg, wire, sent, next, cancelled = unpack(redis.call("HMGET", KEYS[1],
  "state", "msg", "` + wire.FieldWire + `", "` + wire.FieldSent + `", "` + wire.FieldReplayed + `", "` + wire.FieldCancelled + `"))
if not state or cancelled then return "` + NotThere + `" end
if next then return "replaced:" .. next end
if msg == ARGV[3] then return state == "pending" and "` + DueNow + `" or "` + Rescheduled + `" end
if sent or state == "completed" or state == "archived" then return "` + TooLate + `" end
if wire == "` + wire.Decided + `" then return "` + Moving + `" end
if wire or state ~= "pending" and state ~= "scheduled" then return "` + TooLate + `" end
if not msg or redis.sha1hex(msg) ~= ARGV[2] then return "` + Changed + `" end
takeOut(ARGV[1], state)
if KEYS[8] then redis.call("ZREM", KEYS[8], ARGV[1]) end
local now = redis.call("TIME")
if tonumber(ARGV[4]) > tonumber(now[1]) then
  redis.call("ZADD", KEYS[3], ARGV[4], ARGV[1])
  redis.call("HSET", KEYS[1], "msg", ARGV[3], "state", "scheduled")
  redis.call("HDEL", KEYS[1], "pending_since")
  return "` + Rescheduled + `"
end
redis.call("LPUSH", KEYS[2], ARGV[1])
redis.call("HSET", KEYS[1], "msg", ARGV[3], "state", "pending", "pending_since", now[1] .. string.format("%06d", now[2]) .. "000")
return "` + DueNow + `"`)

// Reschedule gives a task that waits in a queue another payload and another time. message is the field msg of its record as it was
// read, and mailing the one that it belongs to, or "". What it answers is one of the constants above, or "replaced:" and an ID.
func Reschedule(ctx context.Context, client redis.UniversalClient, queue, id, message string, payload []byte, mailing string, at time.Time) (answer string, err error) {
	keys := ListKeys(queue, id)
	if mailing != "" {
		keys = append(keys, wire.AsideKey(queue, mailing))
	}
	was := sha1.Sum([]byte(message)) //nolint:gosec // Redis has no better one, and nobody gains by a collision
	return rescheduleScript.Run(ctx, client, keys, id, hex.EncodeToString(was[:]), WithPayload(message, payload), at.Unix()).Text()
}
