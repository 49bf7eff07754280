package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/mailpouch/mailpouch/bench/report"
)

// Describe says what the run runs on. It fails if redis-server is not there.
func Describe(ctx context.Context, root string) (report.Machine, error) {
	server, err := output(ctx, ".", "redis-server", "--version")
	if err != nil {
		return report.Machine{}, errors.New("install redis-server (Debian: apt-get install redis-server)")
	}
	commit, _ := output(ctx, root, "git", "rev-parse", "--short=12", "HEAD") // no git, no commit
	if changed, err := output(ctx, root, "git", "status", "--porcelain"); err == nil && changed != "" {
		commit += " with changes"
	}
	return report.Machine{
		CPU: lineOf("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: gigabytes(lineOf("/proc/meminfo", "MemTotal")),
		System: system(), Go: runtime.Version(), Redis: version(server), Commit: commit,
	}, nil
}

func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, program, args...) //nolint:gosec // fixed programs
	c.Dir = dir
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

// version finds 7.0.15 in "Redis server v=7.0.15 sha=...".
func version(text string) string {
	for word := range strings.FieldsSeq(text) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			return v
		}
	}
	return text
}

// lineOf finds the value of the first "name : value" of a file: "" if there is none.
func lineOf(path, name string) string {
	f, err := os.Open(path) //nolint:gosec // files of /proc
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// gigabytes writes "24689140 kB" as "25 GB".
func gigabytes(kilobytes string) string {
	var n float64
	if _, err := fmt.Sscan(kilobytes, &n); err != nil {
		return ""
	}
	return fmt.Sprintf("%.0f GB", n*1024/1e9)
}

func system() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS + "/" + runtime.GOARCH
	}
	return fmt.Sprintf("%s/%s, kernel %s", runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(release)))
}
