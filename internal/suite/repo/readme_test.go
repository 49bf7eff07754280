package repo

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const readmeFile = "../../../README.md"

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A newcomer reads README whole, so it is short: what is longer has a page in docs.
func TestREADME_size(t *testing.T) {
	t.Parallel()
	if size := len(readme(t)); size > 12_000 {
		t.Errorf("README.md has %d bytes, at most 12,000 are allowed", size)
	}
}

// Every Go program in README, docs/operations.md and docs/django.md compiles.
func TestREADME_programs(t *testing.T) {
	t.Parallel()
	text := readme(t) + read(t, "../../../docs/operations.md") + read(t, "../../../docs/django.md")
	programs := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(programs) < 3 {
		t.Fatalf("there are %d Go programs, want at least 3", len(programs))
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := map[string]string{}
	put := func(path, text string) {
		file := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(root, path)] = file
	}
	var packages []string
	for i, p := range programs {
		put(fmt.Sprintf("internal/suite/repo/program%d/main.go", i), whole(p[1]))
		packages = append(packages, fmt.Sprintf("./internal/suite/repo/program%d", i))
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, pkg := range packages {
		build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlayFile, "-o", os.DevNull, pkg)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", pkg, err, out)
		}
	}
}

// whole makes a program of a few lines of one: they may use what a program has
// at hand.
func whole(text string) string {
	if strings.HasPrefix(text, "package ") {
		return text
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+(?:, \w+)*) :=`).FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			if name != "_" {
				text += "_ = " + name + "\n"
			}
		}
	}
	return "package main\n\nimport (\n\"context\"\n\"" + module + "/mailer\"\n\"" + module + "/tasks\"\n)\n\n" +
		"var _ tasks.Options\n\n" +
		"func main() {}\n\nfunc part(ctx context.Context, mail *mailer.Mailer, queue *tasks.Queue, message *mailer.EmailMessage) {\n" + text + "}\n"
}

// Every make target that a page names is there.
func TestPages_targets(t *testing.T) {
	t.Parallel()
	makefile := read(t, "../../../Makefile")
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z-]*)").FindAllStringSubmatch(read(t, page), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which the Makefile has not", page, m[1])
			}
		}
	}
}
