package redis

import (
	"os/exec"
	"syscall"
)

// dieWithUs makes the kernel kill the server when the test process is gone, even if
// that was killed and could not clean up. The signal is bound to the thread that
// starts the server; Go ends a thread only if a goroutine locked to it returns.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
