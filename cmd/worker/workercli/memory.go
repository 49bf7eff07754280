package workercli

import (
	"math"
	"runtime/debug"

	"github.com/mailpouch/mailpouch/internal/intakeconfig"
	"github.com/mailpouch/mailpouch/settings"
)

// How the garbage collector works in a worker, unless the environment sets GOGC or
// GOMEMLIMIT (see Go's runtime). Most of what a worker allocates is garbage a moment later,
// so it pays to collect seldom. 30,000 mails of 2 kB take 76 MB with GOGC=200, 91 MB with
// 300 and more with 400. The collector costs 7 % of the processor time with 100, and there
// is no visible gain above 200. With big messages 200 would mean several times their
// memory; there the limit makes the collector run as often as it has to.
const (
	collectAt   = 200        // percent
	ownMemory   = 64_000_000 // what a worker needs beside its messages, generously
	spareMemory = 4          // and one in so many parts of their memory, for what is garbage
)

// keepMemoryLow tunes the collector for a worker whose messages may take so many bytes in
// all. A negative number means no limit.
func keepMemoryLow(messages int, getenv func(string) string) {
	percent, limit := collection(messages, getenv)
	if percent > 0 {
		debug.SetGCPercent(percent)
	}
	debug.SetMemoryLimit(limit)
}

// collection returns the arguments of debug.SetGCPercent and debug.SetMemoryLimit. One that
// is not above zero is not to be set.
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

// How much memory a message takes, in its sizes, while it is handed over for another program: as it came, as it is queued, and as it is sent to
// Redis. Big bodies are so many at a time over HTTP (httpapi.Config.BigRequests): four of 54 MB took 770 MB.
const (
	copies    = 3
	bigBodies = 4
)

// withIntake adds what a process may take in from other programs at once to the memory for the messages that it sends. Without a limit for
// these there is none.
func withIntake(messages int, s settings.Settings) int {
	if messages < 0 {
		return messages
	}
	if len(s.Intake.Submission) > 0 {
		messages += copies * int(s.Intake.Memory)
	}
	if s.Intake.API != "" {
		messages += copies * bigBodies * int(intakeconfig.HTTP(s).MaxBody)
	}
	return messages
}
