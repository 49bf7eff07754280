package deploy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// kubernetesSince is the version that has a field or an action without a feature gate, as its documentation says.
// Fields that are older than 1.21 are not listed.
var kubernetesSince = map[string]string{
	"unhealthyPodEvictionPolicy": "1.27",
	"autoscaling/v2":             "1.23",
	"sleep":                      "1.30",
	"matchLabelKeys":             "1.27",
	"minDomains":                 "1.27",
	"nodeTaintsPolicy":           "1.26",
	"appArmorProfile":            "1.30",
	"trafficDistribution":        "1.31",
	"internalTrafficPolicy":      "1.22",
}

// What a cluster needs to be is what the fields in use need.
func TestKubernetes_versions(t *testing.T) {
	t.Parallel()
	readme := readFile(t, "README.md")
	oldest := ""
	for _, name := range []string{"base", "keda", "hpa", "intake"} {
		for field := range fieldsOf(t, name) {
			since, ok := kubernetesSince[field]
			if !ok {
				continue
			}
			if !strings.Contains(readme, "`"+field+"`") || !strings.Contains(readme, "Kubernetes "+since+" |") {
				t.Errorf("README.md does not say that %s needs Kubernetes %s", field, since)
			}
			oldest = max(oldest, since) // all are 1.2x or 1.3x
		}
	}
	if oldest == "" || !strings.Contains(readme, "So "+oldest+" is the oldest") {
		t.Errorf("README.md does not say that %q is the oldest version for all", oldest)
	}
}

// fieldsOf are the names of the fields and versions in what a directory's files create.
func fieldsOf(t *testing.T, name string) map[string]bool {
	t.Helper()
	fields := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				fields[key] = true
				if version, ok := value.(string); ok && key == "apiVersion" {
					fields[version] = true
				}
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	for _, text := range render(t, name) {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		walk(v)
	}
	return fields
}

// systemdSince is the version that knows a line of a unit, as systemd's NEWS says. Lines that are older than 240 are not
// listed.
var systemdSince = map[string]string{
	"Type=exec":           "240",
	"ProtectHostname":     "242",
	"ProtectClock":        "245",
	"ProtectProc":         "247",
	"ProcSubset":          "247",
	"LoadCredential":      "247",
	"PrivateIPC":          "248",
	"RestrictFileSystems": "250",
	"RestartMode":         "254",
	"RestartSteps":        "254",
	"MemoryZSwapMax":      "253",
	"PrivatePIDs":         "257",
}

// README.md says which systemd knows all that the unit says.
func TestSystemd_version(t *testing.T) {
	t.Parallel()
	newest := ""
	for line := range strings.Lines(readUnit(t)) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		for _, name := range []string{key, strings.TrimSpace(line)} {
			newest = max(newest, systemdSince[name])
		}
	}
	if readme := readFile(t, "README.md"); newest == "" || !strings.Contains(readme, "systemd "+newest+" knows all") {
		t.Errorf("README.md does not say that the unit is systemd %s's", newest)
	}
}

// No file speaks of what is no longer there: a service, a path, a variable.
func TestNames(t *testing.T) {
	t.Parallel()
	readme := readFile(t, "README.md")
	compose := readFile(t, "../docker-compose.yml")
	var there []string
	for _, m := range regexp.MustCompile(`\$\{(\w+)(?::-[^}]*)?\}`).FindAllStringSubmatch(compose, -1) {
		there = append(there, m[1])
	}
	table, _, _ := strings.Cut(readme[strings.Index(readme, "| variable |"):], "\n\n")
	var said []string
	for _, m := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(table, -1) {
		said = append(said, m[1])
	}
	slices.Sort(there)
	slices.Sort(said)
	if there = slices.Compact(there); !slices.Equal(said, there) {
		t.Errorf("README.md names the variables %v, docker-compose.yml has %v", said, there)
	}
	for _, file := range []string{"README.md", "../docker-compose.yml", "../SECURITY.md", "kubernetes/base/deployment.yaml", "kubernetes/base/service.yaml"} {
		for _, gone := range []string{"Mailpit", "mailpit", "MAILPIT", "preStop", "README.md here"} {
			if strings.Contains(readFile(t, file), gone) {
				t.Errorf("%s speaks of %s", file, gone)
			}
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name) //nolint:gosec // the test's own names
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
