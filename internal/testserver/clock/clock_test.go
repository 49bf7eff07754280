package clock

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const program = `package main

import "time"

func main() {
	start := time.Now()
	time.Sleep(10 * time.Millisecond)
	println(start.Unix(), time.Since(start) > 0 && time.Since(start) < time.Minute)
}
`

// The clock of the program is as wrong as it is told, and its durations are right.
func TestBuild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "program")
	if err := Build(t.Context(), bin, source); err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, 90 * time.Second, -90 * time.Second} {
		cmd := exec.CommandContext(t.Context(), bin)
		cmd.Env = append(os.Environ(), Ahead(ahead))
		now := time.Now().Add(ahead).Unix()
		said, err := cmd.CombinedOutput()
		at, right, _ := strings.Cut(strings.TrimSpace(string(said)), " ")
		unix, bad := strconv.ParseInt(at, 10, 64)
		if err != nil || bad != nil || unix < now-1 || unix > now+30 || right != "true" {
			t.Errorf("%v ahead: %s, %v, want %d or a little later", ahead, said, err, now)
		}
	}
}
