//go:build !linux

package harness

import (
	"os/exec"
	"time"
)

// dieWithUs cannot be had on this system: a killed benchmark leaves its programs behind.
func dieWithUs(*exec.Cmd) {}

// CPU of a process that still runs cannot be had here: the tables show zero.
func (p *Process) CPU(*Bench) time.Duration { return 0 }

// OwnCPU cannot be had here: the tables show zero.
func OwnCPU(*Bench) time.Duration { return 0 }

// PeakMemory cannot be had here: the tables show zero.
func (p *Process) PeakMemory(*Bench) int64 { return 0 }

// MachineCPU cannot be had here: the tables show zero.
func MachineCPU(*Bench) time.Duration { return 0 }
