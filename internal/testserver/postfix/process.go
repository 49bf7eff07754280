package postfix

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// process is a daemon that leads a process group of its own.
type process struct {
	pid    int
	exited chan struct{} // closed when the daemon has ended
	guard  *guard
}

func start(cmd *exec.Cmd, output string) (*process, error) {
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
	p := &process{pid: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.exited)
	}()
	if p.guard, err = startGuard(p.pid); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// stop asks the daemon to end, and kills what it has left behind.
func (p *process) stop() error {
	var err error
	_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.exited:
	case <-time.After(patience):
		err = fmt.Errorf("process %d did not end in %v and was killed", p.pid, patience)
	}
	p.kill()
	return err
}

// kill ends the daemon and its children at once.
func (p *process) kill() {
	if p.guard != nil {
		p.guard.dismiss()
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.exited
	awaitGroup(p.pid)
}

// guard is a process that kills a process group when the test process is gone, even
// if that was killed and could not clean up: then the pipe that it reads from
// ends. (Linux's parent death signal will not do: the master daemon loses it
// when it changes to another user for a moment.)
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File // what it waits for the end of
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
