package repo

import (
	"os"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/metrics"
)

// The table in docs/metrics.md is the one that the code would write.
func TestDocs_metrics(t *testing.T) {
	const file, begin, end = "../../../docs/metrics.md", "<!-- metrics: written by \"make docs\" -->\n", "<!-- /metrics -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	want := metrics.Markdown()
	if have == want {
		return
	}
	if !*write {
		t.Fatal("the table of metrics is not the code's: run make docs")
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}
