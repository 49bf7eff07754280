//go:build linux

package smtpd

import (
	"os"
	"path/filepath"
	"testing"
)

// Nobody else can open a socket before its mode is set.
func TestBind(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "smtpd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := bind(Listener{Network: "unix", Address: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
