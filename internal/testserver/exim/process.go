package exim

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a daemon that leads a process group of its own.
type process struct {
	pid    int
	exited chan struct{} // closed when the daemon has ended
	alive  *os.File      // when it closes, even because we were killed, the group is killed
}

// grace is what a process that was asked to end has for that. Exim takes milliseconds,
// unless the signal finds it in a bad moment.
const grace = 2 * time.Second

// guarded runs a program beside a shell that kills their process group as soon as the
// pipe that it reads from ends.
const guarded = `(read _ <&3; kill -s KILL 0) & exec 3<&-; exec "$0" "$@"`

func start(cmd *exec.Cmd, output string) (*process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in our own directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	shell := exec.Command("/bin/sh", append([]string{"-c", guarded}, cmd.Args...)...) //nolint:gosec // a fixed script
	shell.Env, shell.Dir, shell.Stdout, shell.Stderr = cmd.Env, cmd.Dir, out, out
	shell.ExtraFiles = []*os.File{r}
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	adoptOrphans()
	if err := shell.Start(); err != nil {
		_ = w.Close()
		return nil, err
	}
	p := &process{pid: shell.Process.Pid, exited: make(chan struct{}), alive: w}
	go func() {
		_ = shell.Wait() // how it ended is in its log
		close(p.exited)
	}()
	return p, nil
}

// stop asks the daemon and its children to end, and kills those that do not.
func (p *process) stop() {
	_ = p.end(syscall.SIGTERM, grace)
	p.kill()
}

// kill ends the daemon and its children at once.
func (p *process) kill() {
	_ = p.end(syscall.SIGKILL, patience) // nobody can withstand it
	_ = p.alive.Close()
}

// end sends a signal until nobody is left in the group, and so nobody writes into the
// directory that is going to be removed. Once does not do: between the body of a message
// and the next command Exim loses a signal.
func (p *process) end(sig syscall.Signal, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(4 * probeInterval)
	defer tick.Stop()
	for syscall.Kill(-p.pid, sig) == nil {
		select {
		case <-p.exited:
			p.reap()
		default:
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("process group %d did not end in %v", p.pid, patience)
		case <-tick.C:
		}
	}
	<-p.exited
	return nil
}

// reap waits for those that the daemon has left behind and that have ended.
func (p *process) reap() {
	for pid := 1; pid > 0; {
		pid, _ = syscall.Wait4(-p.pid, nil, syscall.WNOHANG, nil)
	}
}
