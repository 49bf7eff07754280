package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What cannot be looked up is told apart from what was found, and from what has failed; and no
// module is left out.
func TestVuln(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	const (
		noNetwork = `govulncheck: fetching vulnerabilities: Get "https://vuln.example/index/modules.json.gz": dial tcp: lookup vuln.example: no such host`
		noService = `govulncheck: fetching vulnerabilities: HTTP GET https://vuln.example/index/modules.json.gz returned unexpected status: 503 Service Unavailable`
	)
	all := []string{".", "bench", "deploy", "interop", "tools"}
	for _, tt := range []struct {
		name, said string
		code       string // of govulncheck, in each module
		required   bool
		failed     bool
		want       string
		modules    []string // that are looked at
	}{
		{"nothing", "No vulnerabilities found.", "0", false, false, "./interop: no known vulnerabilities", all},
		{"a finding", "Vulnerability #1: GO-2026-0001", "3", false, true, "./deploy: known vulnerabilities\nVulnerability #1: GO-2026-0001", all},
		{"no network", noNetwork, "1", false, false, "not checked for known vulnerabilities: the database cannot be had", all[:1]},
		{"no service", noService, "1", false, false, "not checked for known vulnerabilities: the database cannot be had", all[:1]},
		{"no network where there must be one", noNetwork, "1", true, true, "not checked for known vulnerabilities", all[:1]},
		{"a broken package", "govulncheck: loading packages: there are errors", "1", false, true, "./tools: govulncheck has failed with exit code 1", all},
		{"a broken database", "creating client: no index of a database", "1", false, true, "govulncheck has failed", all},
		{"a finding that speaks of the network", noNetwork, "3", false, true, "known vulnerabilities", all},
		{"killed", "", "137", false, true, "exit code 137", all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, err := filepath.Abs("../../..")
			if err != nil {
				t.Fatal(err)
			}
			seen := filepath.Join(t.TempDir(), "seen")
			const fake = `echo "$PWD $5" >>"$0"; echo "$1"; exit "$2"`
			c := exec.CommandContext(t.Context(), filepath.Join(root, ".ci/vuln"), "bash", "-c", fake, seen, tt.said, tt.code, "-x", "-y")
			c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "VULN_REQUIRED=") })
			if tt.required {
				c.Env = append(c.Env, "VULN_REQUIRED=1")
			}
			out, err := c.CombinedOutput()
			if (err != nil) != tt.failed || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, want it to fail: %v, and %q in\n%s", err, tt.failed, tt.want, out)
			}
			asked, err := os.ReadFile(seen)
			if err != nil {
				t.Fatal(err)
			}
			var modules []string
			for line := range strings.Lines(string(asked)) {
				dir, flag, _ := strings.Cut(strings.TrimSpace(line), " ")
				name, err := filepath.Rel(root, dir)
				if err != nil || flag != map[bool]string{true: "tool", false: "-test"}[name == "tools"] {
					t.Errorf("asked %q, %v", line, err)
				}
				modules = append(modules, name)
			}
			if !slices.Equal(modules, tt.modules) {
				t.Errorf("looked at %v, want %v", modules, tt.modules)
			}
		})
	}
}

// The scripts that a new asynqmon brings were not looked at when the old one's were.
func TestSecurity_asynqmon(t *testing.T) {
	t.Parallel()
	_, after, _ := strings.Cut(read(t, "../../../go.mod"), "github.com/hibiken/asynqmon ")
	version, _, _ := strings.Cut(after, "\n")
	if !strings.Contains(read(t, "../../../SECURITY.md"), "asynqmon "+version+" ") {
		t.Errorf("asynqmon is %s: look through the libraries of its bundle, and say in SECURITY.md what was found", version)
	}
}
