package repo

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/metrics"
	"github.com/mailpouch/mailpouch/settings"
)

var write = flag.Bool("write", false, "write the generated parts of the pages")

// The tables of docs/settings.md are those that the code would write.
func TestGenerated_settings(t *testing.T) {
	generated(t, "../../../docs/settings.md", "settings", settings.Markdown())
}

// The table in docs/metrics.md is the one that the code would write.
func TestGenerated_metrics(t *testing.T) {
	generated(t, "../../../docs/metrics.md", "metrics", metrics.Markdown())
}

// CONTRIBUTING.md has the table of docs/architecture.md that says where to change what, and
// the files and directories in it are there.
func TestGenerated_changes(t *testing.T) {
	_, rest, ok := strings.Cut(read(t, "../../../docs/architecture.md"), "<!-- changes -->\n")
	table, _, ok2 := strings.Cut(rest, "<!-- /changes -->")
	if !ok || !ok2 {
		t.Fatal("docs/architecture.md has no table between <!-- changes --> and <!-- /changes -->")
	}
	generated(t, "../../../CONTRIBUTING.md", "changes", table)
	paths := regexp.MustCompile("`([a-z0-9_-]+/(?:[a-z0-9/_.-]*(?:/|\\.[a-z]+))?)`").FindAllStringSubmatch(table, -1)
	if len(paths) < 10 {
		t.Errorf("the table names %d files and directories, want at least 10", len(paths))
	}
	for _, m := range paths {
		if _, err := os.Stat("../../../" + m[1]); err != nil {
			t.Errorf("the table says where to change what: %v", err)
		}
	}
}

// generated holds the part of a page between two marks against what the code writes there, or
// writes it with -write.
func generated(t *testing.T, page, mark, want string) {
	t.Helper()
	begin, end := "<!-- "+mark+": written by \"make docs\" -->\n", "<!-- /"+mark+" -->"
	before, rest, ok := strings.Cut(read(t, page), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", page, begin, end)
	}
	if have == want {
		return
	}
	if !*write {
		t.Fatalf("%s is not what the code would write: run make docs", page)
	}
	if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}
