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
}

func newBroker(client redis.UniversalClient, ends *endings, taker *taker) *broker {
	return &broker{UniversalClient: client, ends: ends, taker: taker}
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
		return redis.NewCmdResult(task.message, nil)
	case endsTask(keys, args):
		return redis.NewCmdResult("OK", b.ends.asynqEnds(ctx, keys, args))
	case recovers(ctx, keys):
		if mine, err := takeOver(ctx, b.UniversalClient, keys[2], args[0]); err != nil || !mine {
			return redis.NewCmdResult("OK", err)
		}
	}
	return b.UniversalClient.EvalSha(ctx, sha, keys, args...)
}
