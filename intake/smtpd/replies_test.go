package smtpd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page for those who hand in mail has each refusal that the server knows, and no others.
func TestReplies_documented(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	page, err := os.ReadFile("../../docs/intake.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- replies -->")
	table, _, _ = strings.Cut(table, "<!-- /replies -->")
	known, documented := refusals(`"`, code.String()), refusals("`", table)
	if len(known) == 0 || !slices.Equal(known, documented) {
		t.Errorf("docs/intake.md has the replies\n%q, and the server gives\n%q", documented, known)
	}
}

// refusals are the codes of 4yz and 5yz replies that stand behind a quote in a text, each once.
func refusals(quote, text string) []string {
	found := regexp.MustCompile(quote+`([45]\d\d [45]\.\d\.\d+)`).FindAllStringSubmatch(text, -1)
	var codes []string
	for _, m := range found {
		codes = append(codes, m[1])
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}
