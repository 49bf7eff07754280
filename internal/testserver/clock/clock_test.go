package clock

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestBuild(t *testing.T) {
	t.Parallel()
	program := Build(t, "./testdata/now")
	for _, offset := range []time.Duration{0, 90 * time.Second, -time.Hour} {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = []string{Offset(offset)}
		before := time.Now()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		earliest, latest := before.Add(offset).Unix(), time.Now().Add(offset).Unix()
		if seconds < earliest || seconds > latest {
			t.Errorf("a clock that is off by %v says %d, want %d to %d", offset, seconds, earliest, latest)
		}
	}
}
