package harness

import (
	"bytes"
	"cmp"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// processTimeout is how long a program may take to start or to stop.
const processTimeout = 30 * time.Second

// Process is a running program.
type Process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer // what it said; read it when it has ended
	exited chan struct{}
}

// Start starts a program with these settings beside the environment's. EMAIL_* and
// REDIS_URL of the environment are left out: they are not what is measured.
func Start(b *Bench, path string, args []string, settings ...string) *Process {
	b.Helper()
	cmd := exec.Command(path, args...) //nolint:gosec // a program that we built
	cmd.Env = append(environment(os.Environ()), settings...)
	return start(b, cmd, nil)
}

// start starts a command. What it writes to its standard output goes into the file, if that is not nil.
func start(b *Bench, cmd *exec.Cmd, stdout *os.File) *Process {
	b.Helper()
	p := &Process{cmd: cmd, output: new(bytes.Buffer), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if stdout != nil {
		cmd.Stdout = stdout
	}
	dieWithUs(cmd)
	b.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // how it ended is in its state
		close(p.exited)
	}()
	b.Cleanup(func() { p.stop(b) })
	return p
}

// environment is what a program gets of ours.
func environment(all []string) []string {
	var kept []string
	for _, v := range all {
		if !strings.HasPrefix(v, "EMAIL_") && !strings.HasPrefix(v, "REDIS_URL=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// stop ends the process without waiting for what it has in hand: nobody needs it any more.
func (p *Process) stop(b *Bench) {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // the only error is that it has just ended by itself
	<-p.exited
	if b.Failed() {
		b.Logf("%s said:\n%s", filepath.Base(p.cmd.Path), cmp.Or(p.output.String(), "nothing"))
	}
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits until the process ends by itself, and fails if its exit code is not 0. It
// returns the most memory that the process was seen to have, in bytes.
func (p *Process) Wait(b *Bench) (peak int64) {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !p.Ended() {
		select {
		case <-p.exited:
		case <-tick.C:
			now, _ := peakMemory(p.PID()) // not known if it has just ended
			peak = max(peak, now)
		case <-b.Context().Done():
			b.Check(b.Context().Err())
		}
	}
	if !p.cmd.ProcessState.Success() {
		b.Fatalf("%s: %v", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
	}
	return peak
}

// CPU is the processor time that the process has used so far, of all its threads, in user
// and in system.
func (p *Process) CPU(b *Bench) time.Duration {
	b.Helper()
	t, err := cpuTime(p.PID())
	b.Check(err)
	return t
}

// OwnCPU is the processor time of this program.
func OwnCPU(b *Bench) time.Duration {
	b.Helper()
	t, err := cpuTime(os.Getpid())
	b.Check(err)
	return t
}

// MachineCPU is the processor time that all programs of the machine have used since it was
// started, and what its host took from it.
func MachineCPU(b *Bench) time.Duration {
	b.Helper()
	t, err := machineTime()
	b.Check(err)
	return t
}

// PeakMemory is the most memory that the process has had at once, in bytes.
func (p *Process) PeakMemory(b *Bench) int64 {
	b.Helper()
	n, err := peakMemory(p.PID())
	b.Check(err)
	return n
}

// Used is the processor time of a process that has ended.
func (p *Process) Used() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Listens waits until an address takes connections.
func (p *Process) Listens(b *Bench, addr string) {
	b.Helper()
	p.await(b, func() bool {
		c, err := new(net.Dialer).DialContext(b.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// await asks until the answer is yes.
func (p *Process) await(b *Bench, ready func() bool) {
	b.Helper()
	deadline := time.After(processTimeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.exited:
			b.Fatalf("%s has ended: %v", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
		case <-deadline:
			b.Fatalf("%s is not ready after %v", filepath.Base(p.cmd.Path), processTimeout)
		case <-b.Context().Done():
			b.Check(b.Context().Err())
		case <-tick.C:
		}
	}
}
