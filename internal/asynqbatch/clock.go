package asynqbatch

import "time"

// Clock returns the time since some moment in the past. It never goes back, and it goes on while the process is
// stopped and while the machine is suspended, as far as the system can tell.
type Clock func() time.Duration

// monotonic is the clock of package time.
func monotonic() Clock {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
