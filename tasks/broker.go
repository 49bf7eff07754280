package tasks

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// broker is the client that a lane's asynq servers use. It passes their scripts on, looks at
// how they come back, and keeps some of them from Redis. asynq has no other place
// for that.
type broker struct {
	redis.UniversalClient
	ends  *endings
	empty emptyQueues
}

func newBroker(client redis.UniversalClient, ends *endings) *broker {
	return &broker{UniversalClient: client, ends: ends}
}

// EvalSha implements redis.Scripter. A task that another server gives back is left to it.
func (b *broker) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if recovers(ctx, keys) {
		if mine, err := takeOver(ctx, b.UniversalClient, keys[2], args[0]); err != nil || !mine {
			return redis.NewCmdResult("OK", err)
		}
	}
	takes := takesTask(keys)
	if takes && b.empty.lately(keys[0]) {
		return redis.NewCmdResult(nil, redis.Nil)
	}
	cmd := b.UniversalClient.EvalSha(ctx, sha, keys, args...)
	err := cmd.Err()
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		return cmd // Eval follows
	}
	if takes {
		b.empty.answered(keys[0], err)
	}
	b.ends.ran(keys, err)
	return cmd
}

// Eval implements redis.Scripter.
func (b *broker) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	cmd := b.UniversalClient.Eval(ctx, script, keys, args...)
	b.ends.ran(keys, cmd.Err())
	return cmd
}

// takesTask says whether a script takes the next task of a queue. Its keys are pending,
// paused, active and lease.
func takesTask(keys []string) bool {
	return len(keys) == 4 && strings.HasSuffix(keys[0], "}:pending") && strings.HasSuffix(keys[1], "}:paused")
}

// emptyFor is how long a queue that was empty is taken for empty.
const emptyFor = 5 * time.Millisecond

// emptyQueues remembers for a moment which queues had nothing. asynq asks one queue after
// the other, in an order that chance and the weights decide anew for each task: while
// one of three is full, the empty ones would cost a script for nearly every task. The zero
// value is ready for use.
type emptyQueues struct {
	mu    sync.Mutex
	since map[string]time.Time // by the key of the list
}

func (e *emptyQueues) lately(list string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.since[list]
	return ok && time.Since(at) < emptyFor
}

// answered notes what asynq's script has found.
func (e *emptyQueues) answered(list string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != redis.Nil { //nolint:errorlint // go-redis returns it as it is
		delete(e.since, list)
		return
	}
	if e.since == nil {
		e.since = map[string]time.Time{}
	}
	e.since[list] = time.Now()
}
