package repo

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

var write = flag.Bool("write", false, "write the settings table into README.md")

const readmeFile = "../../../README.md"

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// README's table is the one that the code would write.
func TestREADME_settings(t *testing.T) {
	const begin, end = "<!-- settings: written by \"make docs\" -->\n", "<!-- /settings -->"
	text := readme(t)
	before, rest, ok := strings.Cut(text, begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q and %q", begin, end)
	}
	want := settings.Markdown()
	if have == want {
		return
	}
	if !*write {
		t.Fatal("README's settings table is not the code's: run make docs")
	}
	if err := os.WriteFile(readmeFile, []byte(before+begin+want+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every Go program in README and in docs/operations.md compiles. Packages of example.com are
// the reader's own; here a stub stands for each.
func TestREADME_programs(t *testing.T) {
	t.Parallel()
	text := readme(t) + read(t, "../../../docs/operations.md")
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
	put("internal/suite/repo/pigeon/pigeon.go", pigeon)
	var packages []string
	for i, p := range programs {
		program := strings.ReplaceAll(whole(p[1]), "example.com/shop/pigeon", module+"/internal/suite/repo/pigeon")
		put(fmt.Sprintf("internal/suite/repo/program%d/main.go", i), program)
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

// whole makes a program of a few lines of one: they may use what README's first
// program has.
func whole(text string) string {
	if strings.HasPrefix(text, "package ") {
		return text
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+(?:, \w+)*) :=`).FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			text += "_ = " + name + "\n"
		}
	}
	return "package main\n\nimport (\n\"context\"\n\"" + module + "/mailer\"\n\"" + module + "/tasks\"\n)\n\n" +
		"var _ tasks.Options\n\n" +
		"func main() {}\n\nfunc part(ctx context.Context, mail *mailer.Mailer, queue *tasks.Queue, message *mailer.EmailMessage) {\n" + text + "}\n"
}

const pigeon = `package pigeon

import (
	"context"

	"` + module + `/mailer"
)

type Backend struct{}

func New(string) (*Backend, error) { return &Backend{}, nil }

func (*Backend) Open(context.Context) (bool, error) { return true, nil }
func (*Backend) Close() error                       { return nil }
func (*Backend) SendMessages(context.Context, []*mailer.EmailMessage) (int, error) {
	return 0, nil
}
`

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
