//go:build !linux

package chaos

import (
	"errors"
	"os"
	"os/exec"
)

// dieWithUs does nothing on this system: a killed test leaves its workers behind.
func dieWithUs(*exec.Cmd) {}

// No worker stands still on this system.
func pause(*os.Process) error  { return errors.ErrUnsupported }
func resume(*os.Process) error { return errors.ErrUnsupported }
