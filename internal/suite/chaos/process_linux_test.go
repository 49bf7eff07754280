package chaos

import (
	"os"
	"os/exec"
	"syscall"
)

// dieWithUs makes the kernel kill a worker when the test process is gone, even if that
// was killed and could not clean up.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func pause(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
