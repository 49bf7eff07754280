package queuestats

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// mostNeighbours is how many queues are looked at, and how many neighbours are named.
const mostNeighbours = 500

// Neighbours looks for other programs that use asynq on the same Redis, and returns a warning for each. asynq's keys
// have no prefix: whoever takes from a queue takes whatever is there, and two programs whose queues have the same name
// take each other's tasks.
func Neighbours(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	servers, err := foreignServers(client)
	if err != nil {
		return nil, err
	}
	queues, err := foreignQueues(ctx, client)
	if err != nil {
		return nil, err
	}
	const advice = "asynq's keys have no prefix: give each program a Redis database of its own, or at least queues of names that no other has"
	var warnings []string
	if len(servers) > 0 {
		warnings = append(warnings, fmt.Sprintf("another program's asynq servers take tasks from this Redis: %s. If a queue is ours too they break our mail; %s",
			strings.Join(servers[:min(len(servers), 10)], "; "), advice))
	}
	if len(queues) > 0 {
		warnings = append(warnings, fmt.Sprintf("another program's tasks are in this Redis: in %s. %s", strings.Join(queues[:min(len(queues), 10)], ", "), advice))
	}
	return warnings, nil
}

// foreignServers are the processes with asynq servers that are no workers. A worker has a server for bulk mail, whose
// queues nobody else would name so.
func foreignServers(client redis.UniversalClient) ([]string, error) {
	all, err := asynq.NewInspectorFromRedisClient(client).Servers()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	queues, ours := map[string]map[string]bool{}, map[string]bool{}
	for _, s := range all {
		process := fmt.Sprintf("%s, process %d", redact.Line(s.Host), s.PID)
		if queues[process] == nil {
			queues[process] = map[string]bool{}
		}
		for q := range s.Queues {
			queues[process][redact.Line(q)] = true
			ours[process] = ours[process] || wire.ParseQueueName(q).Bulk
		}
	}
	var foreign []string
	for _, process := range slices.Sorted(maps.Keys(queues)) {
		if !ours[process] {
			foreign = append(foreign, fmt.Sprintf("%s (%s)", process, strings.Join(slices.Sorted(maps.Keys(queues[process])), ", ")))
		}
	}
	return foreign, nil
}

// typesScript returns the types of one task of each of the lists, and sorted sets, of a queue.
var typesScript = redis.NewScript(wire.LuaHeads + `
local types = {}
for i = 1, #KEYS do
  local kind, id = redis.call("TYPE", KEYS[i]).ok
  if kind == "list" then id = redis.call("LINDEX", KEYS[i], -1) end
  if kind == "zset" then id = redis.call("ZRANGE", KEYS[i], 0, 0)[1] end
  local found = id and typeOf(redis.call("HGET", ARGV[1] .. id, "msg"))
  if found then types[#types + 1] = found end
end
return types`)

// foreignQueues are the queues that have tasks of another type than ours, as far as the oldest of them tell.
func foreignQueues(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	names, err := client.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(names)
	var foreign []string
	for _, name := range names[:min(len(names), mostNeighbours)] {
		prefix := "asynq:{" + name + "}:"
		var keys []string
		for _, list := range []string{"pending", "active", "scheduled", "retry", "archived", "completed"} {
			keys = append(keys, prefix+list)
		}
		types, err := typesScript.Run(ctx, client, keys, prefix+"t:").StringSlice()
		if err != nil {
			return nil, redisconn.Unavailable(err)
		}
		for _, kind := range types {
			if kind != wire.TaskType && kind != wire.TaskTypeBulk {
				foreign = append(foreign, fmt.Sprintf("%s (%s)", redact.Line(name), redact.Cut(redact.Line(kind), 100)))
				break
			}
		}
	}
	return foreign, nil
}
