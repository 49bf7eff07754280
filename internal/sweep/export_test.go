package sweep

import (
	"context"
	"time"
)

// Quick makes a sweeper that looks at everything and hardly ever rests. Lists of more than ten are long ones.
func (c Config) Quick() Config {
	c.pace = pace{
		every: time.Millisecond, lostEvery: 10 * time.Millisecond, again: 5 * time.Millisecond, minAge: -5 * time.Second,
		pause: time.Microsecond, rest: -1, short: 10, page: 40,
	}
	return c
}

// SweepExpired is one sweep, whoever has swept before.
func (s *Sweeper) SweepExpired(ctx context.Context) error {
	s.redis.HDel(ctx, sweptKey, s.redis.HKeys(ctx, sweptKey).Val()...)
	return s.sweepExpired(ctx)
}

// SweepLost is one search.
func (s *Sweeper) SweepLost(ctx context.Context) error {
	s.redis.HDel(ctx, sweptKey, lostField)
	return s.sweepLost(ctx)
}

// Claim is claim.
func (s *Sweeper) Claim(ctx context.Context, every time.Duration, fields ...string) ([]string, error) {
	return s.claim(ctx, every, fields...)
}
