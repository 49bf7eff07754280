package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/settings"
)

const (
	unitFile   = "systemd/mailpouch-worker.service"
	intakeFile = "systemd/intake.conf"
)

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// judge has systemd look at the unit, with a program that exists in the worker's place, and with what is put beside it.
func judge(t *testing.T, dropIns []string, args ...string) (output string, err error) {
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
	for _, name := range dropIns {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(file+".d", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(file+".d", filepath.Base(name)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, append(args, file)...).CombinedOutput()
	return string(out), err
}

func TestSystemd_verify(t *testing.T) {
	t.Parallel()
	for _, dropIns := range [][]string{nil, {intakeFile}} {
		if out, err := judge(t, dropIns, "verify", "--man=no"); err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("systemd is not content with the unit and %v: %v\n%s", dropIns, err, out)
		}
	}
}

// systemd's own estimate of what a service could do to the machine, from 0 (nothing) to 10.
func TestSystemd_exposure(t *testing.T) {
	t.Parallel()
	if out, err := judge(t, []string{intakeFile}, "security", "--offline=true", "--threshold=20"); err != nil {
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

// What makes the worker an intake too listens on this machine alone, has its keys where systemd puts them, and room for what is taken in.
func TestSystemd_intake(t *testing.T) {
	t.Parallel()
	conf, known := readFile(t, intakeFile), settingNames()
	set := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^Environment=(\w+)=(.*)$`).FindAllStringSubmatch(conf, -1) {
		set[m[1]] = m[2]
		if !known[m[1]] {
			t.Errorf("%s is not a setting", m[1])
		}
	}
	for _, name := range []string{"EMAIL_SUBMISSION_ADDR", "EMAIL_API_ADDR"} {
		if !strings.HasPrefix(set[name], "127.0.0.1:") {
			t.Errorf("%s is %q: without a certificate only this machine can log in", name, set[name])
		}
	}
	credential := regexp.MustCompile(`(?m)^LoadCredential=(\w+):/etc/mailpouch/keys$`).FindStringSubmatch(conf)
	if credential == nil || set["EMAIL_API_KEYS_FILE"] != "/run/credentials/"+filepath.Base(unitFile)+"/"+credential[1] {
		t.Errorf("the keys are read from %q, the credential is %q", set["EMAIL_API_KEYS_FILE"], credential)
	}
	most := regexp.MustCompile(`(?m)^MemoryMax=(\d+)M$`).FindStringSubmatch(conf)
	if most == nil {
		t.Fatal("no MemoryMax in M")
	}
	mebibytes, err := strconv.ParseInt(most[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	fits(t, "systemd, with the intake", int64(settings.Default().Worker.Memory)+takesIn(), mebibytes<<20)
}
