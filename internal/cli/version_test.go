package cli

import (
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion_describe(t *testing.T) {
	tests := []struct {
		name, stamp, module, want string
	}{
		{"stamped", "v1.2.3", "v0.9.0", "v1.2.3 (go"},
		{"installed", "", "v0.9.0", "v0.9.0 (go"},
		{"no history", "", "(devel)", "devel (go"},
		{"no build info", "", "", "devel (go"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := describe(tt.stamp, &debug.BuildInfo{Main: debug.Module{Version: tt.module}})
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q...", got, tt.want)
			}
		})
	}
}

// The flag that the Dockerfile stamps with reaches both programs.
func TestVersion_stamp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator),
		"-ldflags", "-X github.com/mailpouch/mailpouch/internal/cli.version=v9.8.7-test", "../../cmd/enqueue", "../../cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range []string{"enqueue", "worker"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, name), "--version").CombinedOutput()
		if want := name + " version v9.8.7-test (go"; err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s --version: %q, %v, want %q...", name, out, err, want)
		}
	}
}
