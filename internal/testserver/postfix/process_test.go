package postfix

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A test that is killed closes its files, and with them the guard's pipe.
func TestGuard_killsGroup(t *testing.T) {
	p, err := start(exec.Command("/bin/sh", "-c", "cat /dev/zero >/dev/null & wait"), filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	_ = p.guard.pipe.Close()
	<-p.exited
	awaitGroup(p.pid) // ends only if the child of sh was killed too
	_ = p.guard.cmd.Wait()
	if syscall.Kill(-p.pid, 0) == nil {
		t.Error("the group is still there")
	}
}

func TestProcess_kill(t *testing.T) {
	p, err := start(exec.Command("/bin/sh", "-c", "cat /dev/zero >/dev/null & wait"), filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	if syscall.Kill(-p.pid, 0) == nil {
		t.Error("the group is still there")
	}
}
