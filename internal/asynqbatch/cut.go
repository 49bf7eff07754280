package asynqbatch

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// cut is what lets asynq's servers end while Redis is away. asynq waits for each of its commands when it shuts down,
// one after the other, and each takes as long as the client tries it: two minutes in all. And it cannot be left behind
// either: it dies of a client that is closed under it. So its commands are cut off. They may still be done.
type cut struct {
	once sync.Once
	off  chan struct{} // closed when all commands are to fail
}

func newCut() *cut { return &cut{off: make(chan struct{})} }

// cutClient is a broker whose commands end when they are cut off: those that asynq's servers use.
type cutClient struct {
	*broker
	off <-chan struct{}
}

// until does something, unless the commands are cut off: then it returns failed and leaves it to itself.
func until[T any](off <-chan struct{}, do func() T, failed T) T {
	select {
	case <-off:
		return failed
	default:
	}
	done := make(chan T, 1)
	go func() { done <- do() }()
	select {
	case v := <-done:
		return v
	case <-off:
		return failed
	}
}

func (c cutClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if answer := c.known(ctx, keys, args); answer != nil {
		return answer // without Redis, and so without a goroutine: as for most tasks
	}
	return until(c.off, func() *redis.Cmd { return c.broker.EvalSha(ctx, sha, keys, args...) }, redis.NewCmdResult(nil, errCut))
}

func (c cutClient) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return until(c.off, func() *redis.Cmd { return c.broker.Eval(ctx, script, keys, args...) }, redis.NewCmdResult(nil, errCut))
}

func (c cutClient) Ping(ctx context.Context) *redis.StatusCmd {
	return until(c.off, func() *redis.StatusCmd { return c.broker.Ping(ctx) }, redis.NewStatusResult("", errCut))
}

func (c cutClient) SAdd(ctx context.Context, key string, members ...any) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.SAdd(ctx, key, members...) }, redis.NewIntResult(0, errCut))
}

func (c cutClient) ZAdd(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.ZAdd(ctx, key, members...) }, redis.NewIntResult(0, errCut))
}

func (c cutClient) ZAddXX(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.ZAddXX(ctx, key, members...) }, redis.NewIntResult(0, errCut))
}

func (c cutClient) ZRem(ctx context.Context, key string, members ...any) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.ZRem(ctx, key, members...) }, redis.NewIntResult(0, errCut))
}

func (c cutClient) HSet(ctx context.Context, key string, values ...any) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.HSet(ctx, key, values...) }, redis.NewIntResult(0, errCut))
}

func (c cutClient) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	return until(c.off, func() *redis.IntCmd { return c.broker.Del(ctx, keys...) }, redis.NewIntResult(0, errCut))
}
