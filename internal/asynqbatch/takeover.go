package asynqbatch

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// asynq gives a task back whose lease has run out: each server makes a list of such tasks,
// when it starts and every minute after that, and moves them one by one. It does not look at
// the lease again. So while one server works on its list, another one may have given the
// task back and a worker have taken it: it would be moved away from under that worker,
// to a second one, and both would send its message. Therefore a lease is taken over before
// its task is moved, which one server can do and no other.

// leaseGrace is for how long a lease has to be over, as asynq has it, and what it is
// extended by for the one who moves the task.
const leaseGrace = 30 * time.Second

// takeOverScript takes over the lease KEYS[1] of the task ARGV[1] until ARGV[3], if it was
// over at ARGV[2], and counts that in the field ARGV[4] of the task's record KEYS[2]. It returns the count,
// or -1.
const takeOverScript = `
local lease = redis.call("ZSCORE", KEYS[1], ARGV[1])
if not lease or tonumber(lease) > tonumber(ARGV[2]) then return -1 end
redis.call("ZADD", KEYS[1], ARGV[3], ARGV[1])
if redis.call("EXISTS", KEYS[2]) == 0 then return 0 end
return math.max(redis.call("HINCRBY", KEYS[2], ARGV[4], 1), 0)`

// The keys of asynq's script that recovers a task. The last one is its list of tasks to retry, or of archived ones.
const (
	recoverTask = iota
	recoverActive
	recoverLease
	recoverTo
)

// recoversTask reports whether a script of asynq's gives back a task of another server. A server calls the same
// script for a task of its own, but with the deadline of its lease.
func recoversTask(ctx context.Context, keys []string) bool {
	if _, mine := ctx.Deadline(); mine || len(keys) <= recoverTo || !strings.HasSuffix(keys[recoverLease], ":lease") {
		return false
	}
	return strings.HasSuffix(keys[recoverTo], ":retry") || strings.HasSuffix(keys[recoverTo], ":archived")
}

// takeOver reports whether the task with that record and ID is the caller's to move, and
// how many leases it has lost.
func takeOver(ctx context.Context, client redis.UniversalClient, lease, task string, id any, lostField string) (lost int, mine bool, err error) {
	now := time.Now()
	lost, err = client.Eval(ctx, takeOverScript, []string{lease, task}, id, now.Add(-leaseGrace).Unix(), now.Add(leaseGrace).Unix(), lostField).Int()
	return lost, err == nil && lost >= 0, err
}
