package harness

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// processTimeout is how long a program may take to start or to stop.
const processTimeout = 30 * time.Second

// Programs are the paths of the programs that are measured.
type Programs struct {
	Worker  string // cmd/worker
	Enqueue string // cmd/enqueue
	Peer    string // bench/peer
	BullMQ  string // the directory bench/peer/bullmq
}

// Build builds the programs of the tree that is at root into dir.
func Build(ctx context.Context, root, dir string) (Programs, error) {
	p := Programs{
		Worker: filepath.Join(dir, "worker"), Enqueue: filepath.Join(dir, "enqueue"), Peer: filepath.Join(dir, "peer"),
		BullMQ: filepath.Join(root, "bench", "peer", "bullmq"),
	}
	for _, build := range []struct{ in, pkg, out string }{
		{root, "./cmd/worker", p.Worker},
		{root, "./cmd/enqueue", p.Enqueue},
		{filepath.Join(root, "bench"), "./peer", p.Peer},
	} {
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", build.out, build.pkg) //nolint:gosec // fixed packages
		c.Dir = build.in
		c.Env = append(c.Environ(), "CGO_ENABLED=0") // as "make build" does
		if out, err := c.CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w\n%s", build.pkg, err, out)
		}
	}
	return p, nil
}

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
			peak = max(peak, p.memory())
		case <-b.Context().Done():
			b.Check(b.Context().Err())
		}
	}
	if !p.cmd.ProcessState.Success() {
		b.Fatalf("%s: %v", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
	}
	return peak
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
