package redis

import (
	"slices"

	"go.uber.org/goleak"
)

// VerifyTestMain is goleak's, for packages whose tests take Redis away: a pool that could not connect for a while tries again each second,
// and sees only then that it has been closed.
func VerifyTestMain(m goleak.TestingM, options ...goleak.Option) {
	goleak.VerifyTestMain(m, slices.Concat(options, []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"),
	})...)
}
