package exim

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// A test that is killed closes its files, and with them the pipe.
func TestStart_killsGroup(t *testing.T) {
	p, err := start(exec.Command("/bin/sh", "-c", "cat /dev/zero >/dev/null & wait"), filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	_ = p.alive.Close()
	<-p.exited
	if err := p.end(0, patience); err != nil { // 0 looks and does not touch
		t.Error(err)
	}
}
