//go:build !linux

package harness

import (
	"os/exec"
	"time"
)

// dieWithUs does nothing on this system: a killed benchmark leaves its programs behind.
func dieWithUs(*exec.Cmd) {}

// withoutRoot does nothing on this system.
func withoutRoot(*exec.Cmd) {}

// cpuTime is not known here while the process runs: the tables show zero.
func cpuTime(int) (time.Duration, error) { return 0, nil }

// machineTime is not known here: the tables show zero.
func machineTime() (time.Duration, error) { return 0, nil }

// peakMemory is not known here: the tables show zero.
func peakMemory(int) (int64, error) { return 0, nil }
