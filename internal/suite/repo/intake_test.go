package repo

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

// The pages about mail from other programs and about events name settings that there are.
func TestDocs_intakeSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"EMAIL_HOST": true, "EMAIL_USE_TLS": true} // Django's own, too
	for _, d := range settings.Describe(settings.Default()) {
		known[d.Name], known[d.Name+"_FILE"] = true, true
	}
	for _, page := range []string{"intake.md", "events.md"} {
		names := regexp.MustCompile(`\bEMAIL_[A-Z_]+`).FindAllString(read(t, "../../../docs/"+page), -1)
		if len(names) < 8 {
			t.Errorf("%s names %d settings", page, len(names))
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: there is no setting %s", page, name)
			}
		}
	}
}

// sources is the text of all Go files of a package, without its tests.
func sources(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob("../../../" + dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	var all strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			all.WriteString(read(t, file))
		}
	}
	return all.String()
}

// between is what a page has between two marks.
func between(t *testing.T, page, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, "../../../docs/"+page), "<!-- "+mark+" -->\n")
	text, _, ok2 := strings.Cut(rest, "<!-- /"+mark+" -->")
	if !ok || !ok2 {
		t.Fatalf("%s has no %s", page, mark)
	}
	return text
}

// unique sorts what was found, each once.
func unique(found [][]string) []string {
	var all []string
	for _, m := range found {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The table of replies has those that the server gives to a message, or for which it ends a connection, and no others.
func TestDocs_intakeReplies(t *testing.T) {
	t.Parallel()
	named := unique(regexp.MustCompile("`([245]\\d\\d [245]\\.\\d\\.\\d)`").FindAllStringSubmatch(between(t, "intake.md", "replies"), -1))
	given := unique(regexp.MustCompile(`"([245]\d\d [245]\.\d\.\d)[ "]`).FindAllStringSubmatch(sources(t, "intake/smtpd"), -1))
	for _, reply := range named {
		if !slices.Contains(given, reply) {
			t.Errorf("the server never says %s", reply)
		}
	}
	for _, reply := range given {
		// Syntax and order of commands, and a login that goes wrong for another reason than its key, are the business of who writes a client.
		if strings.HasPrefix(reply, "50") || strings.HasPrefix(reply, "55") && strings.HasSuffix(reply, "5.5.4") || reply[0] == '2' || slices.Contains([]string{"555 5.5.4", "553 5.1.3", "553 5.1.7", "554 5.5.1"}, reply) {
			continue
		}
		if !slices.Contains(named, reply) {
			t.Errorf("intake.md does not say what %s means", reply)
		}
	}
}

// The table of errors has the names that the API gives, and no others.
func TestDocs_intakeErrors(t *testing.T) {
	t.Parallel()
	named := unique(regexp.MustCompile("`([a-z]+_[a-z_]+)`|`not_found`").FindAllStringSubmatch(between(t, "intake.md", "errors"), -1))
	given := unique(regexp.MustCompile(`\n\tname\w+ += "([a-z_]+)"`).FindAllStringSubmatch(sources(t, "intake/httpapi"), -1))
	if len(given) < 15 || !slices.Equal(slices.DeleteFunc(named, func(s string) bool { return s == "" }), given) {
		t.Errorf("intake.md has %q,\nand the API gives %q", named, given)
	}
}
