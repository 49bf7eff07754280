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

// CPU is not known here while the process runs: the tables show zero.
func (p *Process) CPU(*Bench) time.Duration { return 0 }

// OwnCPU is not known here: the tables show zero.
func OwnCPU(*Bench) time.Duration { return 0 }

// PeakMemory is not known here: the tables show zero.
func (p *Process) PeakMemory(*Bench) int64 { return 0 }

// MachineCPU is not known here: the tables show zero.
func MachineCPU(*Bench) time.Duration { return 0 }

func (p *Process) memory() int64 { return 0 }
