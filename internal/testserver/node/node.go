// Package node prepares scripts of Node.js for tests, with the packages of npm that a lock file pins.
package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// installTime bounds npm, which loads packages from its registry.
const installTime = 2 * time.Minute

// Scripts returns a copy of dir, which has scripts, a package.json and a package-lock.json, with the packages of these installed. It is
// kept in the user's cache for as long as the files are the same. The test is skipped where Node.js or npm is not installed or npm reaches no
// registry, and fails there if CI is set in the environment.
func Scripts(t testing.TB, dir string) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			testserver.Missing(t, "Node.js is not installed (Debian: apt-get install nodejs npm)")
		}
	}
	files, sum, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(cache, "mailpouch", fmt.Sprintf("%s-%x", filepath.Base(dir), sum[:8]))
	if _, err := os.Stat(to); err != nil {
		if err := install(to, files); err != nil {
			testserver.Missing(t, err.Error())
		}
	}
	return to
}

// read returns the files of a directory by their names, and a hash of them.
func read(dir string) (files map[string][]byte, sum []byte, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	files, hash := map[string][]byte{}, sha256.New()
	for _, e := range entries { // sorted
		if e.Name() == "node_modules" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name())) //nolint:gosec // files of our own
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(hash, "%s:%d:", e.Name(), len(data))
		hash.Write(data)
		files[e.Name()] = data
	}
	return files, hash.Sum(nil), nil
}

// install makes a directory when all that belongs into it is there. Another test may do so at the same time.
func install(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // a cache
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "npm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), data, 0o600); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTime)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = tmp
	if out, err := npm.CombinedOutput(); err != nil {
		first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("npm ci: %w: %s", err, first)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
