package asynqbatch

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// asynq's archive holds dead letters, and asynq trims it without a word: to 10,000 tasks of a queue and 90 days,
// whenever it archives another one. A worker's server deletes the records of what it drops; an inspector, which asynqmon
// and asynq's command line use, leaves them in Redis, where no list names them any more. So none of asynq's scripts
// that archive a task runs here as it is: a server has one of ours (moves.go), and an inspector's have other arguments.
// What is more than asynq may have is moved to a sorted set of ours beside the archive, wire.DeadKey.

const (
	// ArchiveLimit is how many dead letters of a queue stay in asynq's archive. asynq has room for 8,000 more: for
	// those that others archive before some are moved.
	ArchiveLimit = 2000

	// ArchiveAge is how old they may become there.
	ArchiveAge = 60 * 24 * time.Hour

	archivePage = 500 // tasks that are moved at once
)

// ByHand is why a task is a dead letter that a person has archived.
const ByHand = "archived by hand"

// untrimmed returns the arguments of an inspector's script, changed if that archives tasks, so that it drops none.
func untrimmed(keys []string, args []any) []any {
	var at int // of the time before which tasks are dropped; behind it is how many are kept
	switch {
	case len(keys) == 3 && len(args) == 6 && archivesOne(keys):
		at = 2
	case len(keys) == 3 && len(args) == 5 && archivesOne(keys): // of a group
		at = 1
	case archivesAll(keys, args):
		at = 1
	default:
		return args
	}
	const unlimited = 1 << 31
	args = append([]any{}, args...)
	args[at], args[at+1] = -1, unlimited
	return args
}

// archivesOne reports whether an inspector archives a task, or a group of tasks. The keys are those of the task or of
// the group, of the archive, and of the set of all groups.
func archivesOne(keys []string) bool {
	return strings.HasSuffix(keys[1], "}:archived") && strings.HasSuffix(keys[2], "}:groups")
}

// archivesAll reports whether an inspector archives all tasks of a list. The keys are those of the list and of the
// archive.
func archivesAll(keys []string, args []any) bool {
	return len(keys) == 2 && (len(args) == 4 || len(args) == 5) && strings.HasSuffix(keys[1], "}:archived")
}

// ArchiveClient returns a client for an asynq.Inspector, or for asynqmon, with which that archives tasks and drops
// none. What is archived all at once is moved in pages, so that Redis has time for others.
func ArchiveClient(client redis.UniversalClient) redis.UniversalClient { return &archiver{client} }

type archiver struct{ redis.UniversalClient }

// EvalSha implements redis.Scripter.
func (a *archiver) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if archivesAll(keys, args) {
		n, err := archiveAll(ctx, a.UniversalClient, keys[0])
		return redis.NewCmdResult(int64(n), err)
	}
	return a.archiveOne(ctx, keys, args, a.UniversalClient.EvalSha(ctx, sha, keys, untrimmed(keys, args)...))
}

// Eval implements redis.Scripter. It is called when Redis does not know the script yet.
func (a *archiver) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return a.archiveOne(ctx, keys, args, a.UniversalClient.Eval(ctx, script, keys, untrimmed(keys, args)...))
}

// archiveOne notes why a task is a dead letter when a script has archived one.
func (a *archiver) archiveOne(ctx context.Context, keys []string, args []any, done *redis.Cmd) *redis.Cmd {
	if len(keys) != 3 || len(args) != 6 || !archivesOne(keys) {
		return done
	}
	if n, err := done.Int(); err != nil || n != 1 {
		return done
	}
	queue, _ := queueAndList(keys[1])
	if err := MakeRoom(ctx, a.UniversalClient, queue, keys[0], ByHand); err != nil {
		return redis.NewCmdResult(nil, err)
	}
	return done
}

// queueAndList is the queue that a key of asynq's is about, and what the key is.
func queueAndList(key string) (queue, what string) {
	queue, what, _ = strings.Cut(strings.TrimPrefix(key, "asynq:{"), "}:")
	return queue, what
}

// luaMakeRoom moves what is too old or too much from asynq's archive, KEYS[1], to KEYS[2]: a thousand at a time.
const luaMakeRoom = `
local function makeRoom(oldest, most)
  local move = function(list)
    for i = 1, #list, 2 do
      redis.call("ZADD", KEYS[2], list[i+1], list[i])
      redis.call("ZREM", KEYS[1], list[i])
    end
  end
  move(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", oldest, "WITHSCORES", "LIMIT", 0, 1000))
  local extra = redis.call("ZCARD", KEYS[1]) - tonumber(most)
  if extra > 0 then
    move(redis.call("ZRANGE", KEYS[1], 0, math.min(extra, 1000) - 1, "WITHSCORES"))
  end
  return extra
end
`

// makeRoomScript also writes a reason, ARGV[3], into the record of the task KEYS[3], if that is there.
var makeRoomScript = redis.NewScript(luaMakeRoom + `
if redis.call("EXISTS", KEYS[3]) == 1 then redis.call("HSET", KEYS[3], "` + wire.FieldReason + `", ARGV[3]) end
return makeRoom(ARGV[1], ARGV[2])`)

// MakeRoom moves the dead letters of a queue that asynq would soon drop out of its reach. It comes before a task is
// archived, or after, and notes the whole reason for that in the task's record at taskKey.
func MakeRoom(ctx context.Context, client redis.UniversalClient, queue, taskKey, reason string) error {
	keys := []string{archiveKey(queue), wire.DeadKey(queue), taskKey}
	return makeRoomScript.Run(ctx, client, keys, time.Now().Add(-ArchiveAge).Unix(), ArchiveLimit, reason).Err()
}

func archiveKey(queue string) string { return "asynq:{" + queue + "}:archived" }

// archivePageScript moves up to ARGV[3] tasks from the list, or the sorted set, KEYS[3] to the archive, and returns how
// many there were: those of a list from its old end. ARGV[4] is what the keys of tasks begin with, ARGV[5] the reason.
var archivePageScript = redis.NewScript(luaMakeRoom + `
local ids
if redis.call("TYPE", KEYS[3]).ok == "list" then
  ids = redis.call("LRANGE", KEYS[3], -ARGV[3], -1)
  redis.call("LTRIM", KEYS[3], 0, -ARGV[3] - 1)
else
  ids = redis.call("ZRANGE", KEYS[3], 0, ARGV[3] - 1)
  if #ids > 0 then redis.call("ZREM", KEYS[3], unpack(ids)) end
end
local now = redis.call("TIME")[1]
for _, id in ipairs(ids) do
  local key = ARGV[4] .. id
  if redis.call("EXISTS", key) == 1 then
    redis.call("ZADD", KEYS[1], now, id)
    redis.call("HSET", key, "state", "archived", "` + wire.FieldReason + `", ARGV[5])
    redis.call("HDEL", key, "pending_since")
  end
end
makeRoom(ARGV[1], ARGV[2])
return #ids`)

// archiveAll makes dead letters of all tasks that are in a list of a queue now, and returns how many.
func archiveAll(ctx context.Context, client redis.UniversalClient, list string) (int, error) {
	queue, what := queueAndList(list)
	var all *redis.IntCmd
	if what == "pending" {
		all = client.LLen(ctx, list)
	} else {
		all = client.ZCard(ctx, list)
	}
	most, err := all.Result()
	if err != nil {
		return 0, err
	}
	keys := []string{archiveKey(queue), wire.DeadKey(queue), list}
	moved := 0
	for moved < int(most) {
		oldest, page := time.Now().Add(-ArchiveAge).Unix(), min(archivePage, int(most)-moved)
		n, err := archivePageScript.Run(ctx, client, keys, oldest, ArchiveLimit, page, TaskKey(queue, ""), ByHand).Int()
		if err != nil {
			return moved, err
		}
		if n == 0 {
			break
		}
		moved += n
	}
	return moved, nil
}
