//go:build !linux

package redistest

import "os/exec"

// dieWithUs cannot be had on this system: a killed test leaves its server behind.
func dieWithUs(*exec.Cmd) {}
