//go:build !linux

package asynqbatch

// systemClock is the clock of package time. Whether that counts the time for which the machine was suspended depends
// on the system.
func systemClock() Clock { return monotonic() }
