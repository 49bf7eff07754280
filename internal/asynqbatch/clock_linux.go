package asynqbatch

import (
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is CLOCK_BOOTTIME. Unlike CLOCK_MONOTONIC, which package time reads, it counts the time for which
// the machine was suspended. A virtual machine that its host has paused may not know of that at all.
func systemClock() Clock {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return monotonic()
	}
	return func() time.Duration {
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
		return time.Duration(t.Nano())
	}
}
