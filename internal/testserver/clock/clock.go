// Package clock builds programs whose clock is wrong, for tests with real processes.
//
// The program is built with another package time, in which Now adds what an environment variable says. Its timers and
// durations are right, as on a machine whose clock was set wrong.
package clock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// variable has the number of seconds by which the clock is ahead.
const variable = "TEST_CLOCK_AHEAD"

// Ahead is the environment variable for a program of Build whose clock is so many seconds ahead, or behind if
// that is negative.
func Ahead(by time.Duration) string { return fmt.Sprintf("%s=%d", variable, int64(by.Seconds())) }

// The line of time.Now that reads the clock, and what follows it here.
const (
	reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	adds  = "\tsec += clockAhead\n"
)

const file = `package time

import "syscall"

var clockAhead = func() int64 {
	value, _ := syscall.Getenv("` + variable + `")
	n, sign := int64(0), int64(1)
	for i := range len(value) {
		if value[i] == '-' {
			sign = -1
		} else {
			n = 10*n + int64(value[i]-'0')
		}
	}
	return sign * n
}()
`

// Build builds the program of a package to the file out. It takes a while the first time, for most of the standard
// library is built anew.
func Build(ctx context.Context, out, pkg string) error {
	dir, err := os.MkdirTemp("", "clock")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(ctx, dir)
	if err != nil {
		return err
	}
	if said, err := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", out, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, said)
	}
	return nil
}

func writeOverlay(ctx context.Context, dir string) (name string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	std := filepath.Join(string(bytes.TrimSpace(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	if bytes.Count(source, []byte(reads)) != 1 {
		return "", errors.New("time.Now is not what it was: see internal/testserver/clock")
	}
	source = bytes.Replace(source, []byte(reads), []byte(reads+adds), 1)
	replaced := map[string]string{}
	for name, content := range map[string][]byte{"time.go": source, "clockahead.go": []byte(file)} {
		replaced[filepath.Join(std, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	name = filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, data, 0o600)
}
