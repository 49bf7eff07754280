// Package clock builds programs whose clock is wrong, for tests of what is said about the time of day by several
// machines.
package clock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// offsetVariable is what a program that Build has made reads: by how many seconds its clock is ahead.
const offsetVariable = "CLOCK_OFFSET"

// Build builds the program in a folder of the module. Where it is run with a variable of Offset's, time.Now is off by
// that much. Timers, time-outs and monotonic clocks are right, as they are on a machine whose time of day is wrong.
//
// The runtime of Go asks the kernel for the time without libc, so nothing can be put between the two when a program
// starts. Therefore it is built with another time.Now.
func Build(t testing.TB, folder string) (program string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(string(bytes.TrimSpace(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original) //nolint:gosec // Go's own
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(source, []byte(now)) != 1 {
		t.Fatalf("%s has no longer the time.Now that is known here", original)
	}
	source = bytes.Replace(source, []byte(now), []byte(now+"\tsec += clockOffset\n"), 1)
	source = append(bytes.Replace(source, []byte("import (\n"), []byte("import (\n\t\"syscall\"\n"), 1), offset...)
	changed := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{changed: source, filepath.Join(dir, "overlay.json"): overlay} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, filepath.Base(folder))
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, folder) //nolint:gosec // a test's own
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// offset is added to Go's package time.
const offset = `
var clockOffset = readClockOffset()

func readClockOffset() int64 {
	text, _ := syscall.Getenv("` + offsetVariable + `")
	sign, seconds := int64(1), int64(0)
	for _, c := range text {
		if c == '-' {
			sign = -1
		} else {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}
`

// Offset is the variable that sets a program's clock ahead, or back if d is negative, by whole seconds.
func Offset(d time.Duration) (variable string) {
	return fmt.Sprintf("%s=%d", offsetVariable, int64(d/time.Second))
}
