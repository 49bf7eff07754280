package workercli

import (
	"math"
	"runtime/debug"
)

// How the garbage collector works in a worker, where the environment does not say (GOGC
// and GOMEMLIMIT, see Go's runtime). Most of what a worker allocates is garbage a
// moment later and little of it stays, so it pays to collect seldom. 30,000 mails of 2 kB take
// 76 MB with GOGC=200, 91 MB with 300 and more with 400; what the collector costs is 7 %
// of the processor time with 100, and nothing that shows is to be gained above 200. With big messages in hand that
// would be several times their memory: then the limit makes it collect as often as it has to.
const (
	collectAt   = 200        // percent
	ownMemory   = 64_000_000 // what a worker needs beside its messages, generously
	spareMemory = 4          // and one in so many parts of their memory, for what is garbage
)

// keepMemoryLow tunes the collector for a worker whose messages may take so many bytes:
// any number if it is negative.
func keepMemoryLow(messages int, getenv func(string) string) {
	percent, limit := collection(messages, getenv)
	if percent > 0 {
		debug.SetGCPercent(percent)
	}
	debug.SetMemoryLimit(limit)
}

// collection returns what debug.SetGCPercent and debug.SetMemoryLimit are to be told:
// nothing if not above zero.
func collection(messages int, getenv func(string) string) (percent int, limit int64) {
	if getenv("GOGC") == "" {
		percent = collectAt
	}
	limit = -1
	if getenv("GOMEMLIMIT") == "" && messages > 0 {
		limit = math.MaxInt64
		if spare := int64(messages)/spareMemory + ownMemory; int64(messages) < limit-spare {
			limit = int64(messages) + spare
		}
	}
	return percent, limit
}
