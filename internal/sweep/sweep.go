// Package sweep makes dead letters of mail that no worker will take in hand: of what has waited in Redis until its time
// was up, while every relay that could take it was away; and of tasks that no list of asynq's names any more, so that
// nobody would ever find them.
//
// It is a worker's task beside its mail, and costs next to nothing: it asks Redis a few times a second at most, a page
// at a time, and of workers that serve the same queues one sweeps.
package sweep

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// New returns a sweeper on the given Redis, which it does not close.
func New(client redis.UniversalClient, cfg Config) *Sweeper {
	if cfg.Swept == nil {
		cfg.Swept = func(string, Why, int) {}
	}
	if cfg.Buried == nil {
		cfg.Buried = func(context.Context, string, []string) {}
	}
	cfg.pace = cfg.withDefaults(cmp.Or(cfg.Every, time.Minute))
	return &Sweeper{redis: client, cfg: cfg}
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { s.repeat(ctx, s.cfg.every, s.sweepExpired) })
	both.Go(func() { s.repeat(ctx, s.cfg.lostEvery/10, s.sweepLost) })
	both.Wait()
}

// repeat sweeps, again and again. Redis is soon there again, and then the next sweep does what this one could not.
func (s *Sweeper) repeat(ctx context.Context, pause time.Duration, sweep func(context.Context) error) {
	for wait(ctx, pause) {
		if err := sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Debug().Err(redisconn.Unavailable(err)).Msg("sweep: tried again later")
		}
	}
}
