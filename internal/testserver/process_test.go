package testserver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startGroup(t *testing.T, script string) *Process {
	t.Helper()
	p, _ := startPrinting(t, script)
	return p
}

// startPrinting is startGroup for a script whose output a test reads in a file.
func startPrinting(t *testing.T, script string) (p *Process, output string) {
	t.Helper()
	output = filepath.Join(t.TempDir(), "out")
	p, err := Start(exec.Command("/bin/sh", "-c", script), output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, output
}

func wantGone(t *testing.T, p *Process) {
	t.Helper()
	if p.Running() {
		t.Error("the daemon is still there")
	}
	if syscall.Kill(-p.pid, 0) == nil {
		t.Error("the group is still there")
	}
}

// A test that is killed closes its files, and with them the guard's pipe.
func TestGuard_killsGroup(t *testing.T) {
	p := startGroup(t, "cat /dev/zero >/dev/null & wait")
	_ = p.guard.pipe.Close()
	<-p.exited
	if err := p.end(0, Timeout); err != nil { // 0 looks and does not touch
		t.Error(err)
	}
	wantGone(t, p)
}

func TestProcess_Kill(t *testing.T) {
	p := startGroup(t, "cat /dev/zero >/dev/null & wait")
	if !p.Running() {
		t.Error("the daemon does not run")
	}
	p.Kill()
	wantGone(t, p)
	p.Kill() // does nothing
}

func TestProcess_Stop(t *testing.T) {
	p := startGroup(t, "cat /dev/zero >/dev/null & wait")
	if err := p.Stop(Timeout); err != nil {
		t.Error(err)
	}
	wantGone(t, p)
}

// One that does not heed the signal is killed, which the caller learns.
func TestProcess_Stop_killsAtLast(t *testing.T) {
	p, output := startPrinting(t, "trap '' TERM; echo deaf; cat /dev/zero >/dev/null & wait")
	err := Poll(t.Context(), p, func() error {
		said, err := os.ReadFile(output)
		if err == nil && len(said) == 0 {
			err = errors.New("it still heeds the signal")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(50 * time.Millisecond); err == nil {
		t.Error("no error")
	}
	wantGone(t, p)
}
