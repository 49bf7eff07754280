package deploy

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mailpouch/mailpouch/"

// .dockerignore lets through what the programs are built of, and nothing else: a new package has to
// be added to it.
func TestDockerignore(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if !slices.Contains(lines, "*") {
		t.Error(".dockerignore keeps nothing out")
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/worker", "./cmd/enqueue", "./examples/contact")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		path, ok := strings.CutPrefix(pkg, module)
		top, _, _ := strings.Cut(path, "/")
		if ok && !slices.Contains(lines, "!"+top) {
			t.Errorf(".dockerignore keeps %s out of the image's build", path)
		}
	}
}

// The images that the Dockerfile begins with have whole versions, and nothing in it runs as root.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	images := regexp.MustCompile(`(?m)^ARG \w+_IMAGE=(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(images) != 2 {
		t.Errorf("it begins with %d images, want Go's and asynqmon's", len(images))
	}
	for _, m := range images {
		if !pinned.MatchString(m[1]) {
			t.Errorf("%s has no whole version", m[1])
		}
	}
	stages := regexp.MustCompile(`(?m)^FROM `).Split(string(text), -1)
	for _, stage := range stages[1:] {
		if strings.HasPrefix(stage, "scratch ") && !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(stage) {
			t.Errorf("a stage runs as root:\n%s", stage)
		}
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]
	if !strings.HasPrefix(images[0][1], "golang:"+release+".") {
		t.Errorf("it builds with %s, go.mod says %s", images[0][1], release)
	}
}
