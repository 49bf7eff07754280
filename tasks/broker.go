package tasks

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// broker is the client that an asynq server uses. It takes and ends tasks in its own way, and
// passes all other scripts on. asynq has no other place for that.
type broker struct {
	redis.UniversalClient
	ends  *endings
	taker *taker
	alone *isolation
}

func newBroker(client redis.UniversalClient, ends *endings, taker *taker, alone *isolation) *broker {
	return &broker{UniversalClient: client, ends: ends, taker: taker, alone: alone}
}

// EvalSha implements redis.Scripter. A task that another server gives back is left to it.
func (b *broker) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	switch {
	case takesTask(keys, args):
		task, err := b.taker.take(ctx, keys, args[0], args[1])
		if err != nil {
			return redis.NewCmdResult(nil, err)
		}
		b.ends.give(task)
		b.alone.taken(task.key(), task.lost)
		return redis.NewCmdResult(task.message, nil)
	case endsTask(keys, args):
		return redis.NewCmdResult("OK", b.ends.asynqEnds(ctx, keys, args))
	case recovers(ctx, keys):
		lost, mine, err := takeOver(ctx, b.UniversalClient, keys[2], keys[0], args[0])
		if err != nil || !mine {
			return redis.NewCmdResult("OK", err)
		}
		b.alone.log.Warn().Any("task", args[0]).Int("lost_leases", lost).
			Msg("the worker that had this task died, or was cut off from Redis: another one goes on with it")
	}
	return b.UniversalClient.EvalSha(ctx, sha, keys, args...)
}
