package command

import (
	"math"
	"runtime/debug"
)

// How the garbage collector works in a worker, where the environment does not say (GOGC
// and GOMEMLIMIT, see Go's runtime). Most of what a worker allocates is garbage a
// moment later and little of it stays, so it pays to collect seldom: GOGC=400 carries about
// 15 % more mail than 100. With big messages in hand that would take several times
// their memory. Then the limit makes it collect as often as it has to.
const (
	collectAt   = 400        // percent
	ownMemory   = 64_000_000 // what a worker needs beside its messages, generously
	spareMemory = 4          // and one in so many parts of their memory, for what is garbage
)

// keepMemoryLow tunes the collector for a worker whose messages may take so many octets:
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
		limit = int64(min(messages, math.MaxInt/2)) + int64(messages/spareMemory) + ownMemory
	}
	return percent, limit
}
