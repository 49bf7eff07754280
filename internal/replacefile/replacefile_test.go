//go:build unix

package replacefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	for i, give := range []string{path, path, link} {
		want := fmt.Sprint("text ", i)
		if err := Write(give, want); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, "text"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v, want that it has stayed", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link has become %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := Write(filepath.Join(dir, "none", "f"), "x"); err == nil {
		t.Error("a directory that is not there is no error")
	}
}

// With the lock no change of several writers is lost.
func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	var writers sync.WaitGroup
	const n = 20
	for i := range n {
		writers.Go(func() {
			unlock, err := Lock(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			before, _ := os.ReadFile(path)
			if err := Write(path, string(before)+fmt.Sprintln(i)); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if got, err := os.ReadFile(path); err != nil || strings.Count(string(got), "\n") != n {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLock_ends(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	unlock, err = Lock(t.Context(), filepath.Join(t.TempDir(), "none", "f"))
	if err != nil {
		t.Fatalf("where there can be no lock: %v", err)
	}
	unlock()
}
