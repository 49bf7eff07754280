package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Process is a daemon that leads a process group of its own. The group is killed when
// the test process ends, even if that is killed and cannot clean up.
type Process struct {
	pid    int
	exited chan struct{} // closed when the daemon has ended
	guard  *guard
	ended  bool // the group is gone, and its ID may be somebody else's now
}

// Start starts a daemon. What it prints is appended to the file output.
func Start(cmd *exec.Cmd, output string) (*Process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in our own directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	adoptOrphans()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{pid: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.exited)
	}()
	if p.guard, err = startGuard(p.pid); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// PID is the daemon's process ID.
func (p *Process) PID() int { return p.pid }

// Running reports whether the daemon is there, be it paused. A nil process is not running.
func (p *Process) Running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the daemon alone.
func (p *Process) Signal(sig syscall.Signal) error { return syscall.Kill(p.pid, sig) }

// Stop asks the daemon and its children to end, and kills those that have not done so
// after a while. It returns an error then.
func (p *Process) Stop(grace time.Duration) error {
	if p.ended {
		return nil
	}
	err := p.end(syscall.SIGTERM, grace)
	p.Kill()
	return err
}

// Kill ends the daemon and its children at once. Killing one that has ended does nothing.
func (p *Process) Kill() {
	if p.ended {
		return
	}
	_ = p.end(syscall.SIGKILL, Patience) // nobody can withstand it
	if p.guard != nil {
		p.guard.dismiss()
	}
	p.ended = true
}

// end sends a signal until nobody is left in the group, and so nobody writes into the
// directory that is going to be removed. Once is not enough: between the body of a
// message and the next command Exim loses a signal.
func (p *Process) end(sig syscall.Signal, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * probeInterval)
	defer tick.Stop()
	exited := p.exited
	for syscall.Kill(-p.pid, sig) == nil {
		select {
		case <-exited:
			exited = nil // its children may need longer
		case <-deadline.C:
			return fmt.Errorf("process group %d did not end in %v", p.pid, patience)
		case <-tick.C:
		}
		if exited == nil {
			p.reap()
		}
	}
	<-p.exited
	return nil
}

// reap waits for the children that the daemon has left behind and that have ended.
func (p *Process) reap() {
	for pid := 1; pid > 0; {
		pid, _ = syscall.Wait4(-p.pid, nil, syscall.WNOHANG, nil)
	}
}

// guard is a process that kills a process group when the test process is gone: then
// the pipe that it reads from ends. Linux's parent death signal is not enough: a
// daemon that changes to another user loses it. The guard is outside of the group,
// because Postfix's master daemon does not expect a child that it has not started.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File // the guard waits for its end
}

func startGuard(pgid int) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command("/bin/sh", "-c", `read _; kill -s KILL -- "-$0"`, strconv.Itoa(pgid)) //nolint:gosec // a fixed script
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is not for it
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return nil, err
	}
	return &guard{cmd: cmd, pipe: w}, nil
}

// dismiss ends the guard without letting it kill anybody.
func (g *guard) dismiss() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	_ = g.pipe.Close()
}
