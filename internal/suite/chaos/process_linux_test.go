package chaos

import (
	"os/exec"
	"syscall"
)

// dieWithUs makes the kernel kill a worker when the test process is gone, even if that
// was killed and could not clean up.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
