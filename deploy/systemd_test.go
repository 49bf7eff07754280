package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/settings"
)

const unitFile = "systemd/mailpouch-worker.service"

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// judge has systemd look at the unit, with a program that exists in the worker's place.
func judge(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze") //nolint:misspell // its name
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd is missing, and CI has to have it: see .ci/deps")
		}
		t.Skip("systemd is missing: install it (Debian: apt-get install systemd)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.Replace(readUnit(t), "ExecStart=/usr/local/bin/worker ", "ExecStart="+self+" ", 1)
	file := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, append(args, file)...).CombinedOutput()
	return string(out), err
}

func TestSystemd_verify(t *testing.T) {
	t.Parallel()
	if out, err := judge(t, "verify", "--man=no"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd is not content: %v\n%s", err, out)
	}
}

// systemd's own estimate of what a service could do to the machine, from 0 (nothing) to 10.
func TestSystemd_exposure(t *testing.T) {
	t.Parallel()
	if out, err := judge(t, "security", "--offline=true", "--threshold=20"); err != nil {
		t.Errorf("more exposed than 2.0: %v\n%s", err, out)
	}
}

func TestSystemd_grace(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)min$`).FindStringSubmatch(readUnit(t))
	if m == nil {
		t.Fatal("no TimeoutStopSec in minutes")
	}
	got, err := time.ParseDuration(m[1] + "m")
	if least := settings.Default().Worker.ShutdownTimeout + 15*time.Second; err != nil || got < least {
		t.Errorf("the worker is killed after %v, want at least %v (%v)", got, least, err)
	}
}

func TestSystemd_settings(t *testing.T) {
	t.Parallel()
	known := settingNames()
	names := readEnv(t, "systemd/worker.env")
	if len(names) < 3 {
		t.Fatalf("worker.env has %v", names)
	}
	for _, name := range names {
		if !known[name] {
			t.Errorf("%s is not a setting", name)
		}
	}
}
