package repo

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are the pages whose links and pictures are checked.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "deploy/*.md"} {
		found, err := filepath.Glob(filepath.Join("../../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if !slices.Contains(all, readmeFile) || len(all) < 8 {
		t.Fatalf("only these pages were found: %v", all)
	}
	return all
}

// Links within the project lead somewhere: to a file or directory that is there, and to a
// heading that its page has.
func TestPages_links(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for _, l := range links(read(t, page)) {
			if problem := follow(t, page, l.target); problem != "" {
				t.Errorf("%s: %s", strings.TrimPrefix(page, "../../../"), problem)
			}
			if l.picture && l.text == "" {
				t.Errorf("%s: the picture %s has no text for who cannot see it", strings.TrimPrefix(page, "../../../"), l.target)
			}
		}
	}
}

// Every picture in docs/images is shown or linked to, so that none grows old unseen.
func TestPages_images(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, page := range pages(t) {
		all.WriteString(read(t, page))
	}
	entries, err := os.ReadDir("../../../docs/images")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.Contains(all.String(), "images/"+entry.Name()) {
			t.Errorf("no page has docs/images/%s", entry.Name())
		}
	}
}

// Code that a page says is from a file is in that file.
func TestPages_code(t *testing.T) {
	t.Parallel()
	quoted := regexp.MustCompile("(?s)<!-- from (\\S+) -->\n```[a-z]+\n(.*?)```")
	count := 0
	for _, page := range pages(t) {
		for _, m := range quoted.FindAllStringSubmatch(read(t, page), -1) {
			count++
			source := read(t, filepath.Join("../../..", m[1]))
			for part := range strings.SplitSeq(m[2], "\n// ...\n") {
				if !strings.Contains(source, strings.Trim(part, "\n")) {
					t.Errorf("%s: this is not in %s:\n%s", strings.TrimPrefix(page, "../../../"), m[1], part)
				}
			}
		}
	}
	if count == 0 {
		t.Error("no page has code from a file")
	}
}

// The tests above can tell what is there from what is not.
func TestPages_lookup(t *testing.T) {
	t.Parallel()
	text := "[a](docs/x.md#y) [![b](i.png \"title\")](k) [<img src=\"j.png\" width=\"300\" alt=\"c\">](l)\n```\n[no](link)\n```\n`[no](link)` [d](https://example.com/)"
	want := []link{
		{"j.png", "c", true}, {"docs/x.md#y", "a", false}, {"i.png", "b", true}, {"l", "", false}, {"https://example.com/", "d", false}, {"k", "", false},
	}
	if got := links(text); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for target, there := range map[string]bool{
		"docs/design/redis.md": true, "docs/architecture.md#five-nouns": true, "#settings": true, "docs": true, "https://example.com/no": true,
		"docs/nothing.md": false, "docs/architecture.md#six-nouns": false, "#no-such-heading": false, "/etc/passwd": false, "../README.md": false,
	} {
		if problem := follow(t, readmeFile, target); (problem == "") != there {
			t.Errorf("%s: got %q", target, problem)
		}
	}
	for heading, want := range map[string]string{
		"What to do when ...": "what-to-do-when-", "`REDIS_URL`": "redis_url", "100 million mails, 1,157 a second": "100-million-mails-1157-a-second",
	} {
		if got := anchor(heading); got != want {
			t.Errorf("anchor of %q: got %q, want %q", heading, got, want)
		}
	}
}

type link struct {
	target, text string
	picture      bool
}

var (
	code      = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	markdown  = regexp.MustCompile(`(!?)\[([^\]\[]*)\]\(([^)\s]+)(?: "[^"]*")?\)`)
	htmlImage = regexp.MustCompile(`<img [^>]*>`)
	attribute = regexp.MustCompile(`(src|alt)="([^"]*)"`)
)

// links returns the links and pictures of a page, those in code left out. A picture may be
// the text of a link: then it is found first, and the link in a second look.
func links(text string) []link {
	text = code.ReplaceAllString(text, "")
	var all []link
	for _, tag := range htmlImage.FindAllString(text, -1) {
		l := link{picture: true}
		for _, a := range attribute.FindAllStringSubmatch(tag, -1) {
			if a[1] == "src" {
				l.target = a[2]
			} else {
				l.text = a[2]
			}
		}
		all = append(all, l)
	}
	text = htmlImage.ReplaceAllString(text, "")
	for {
		found := markdown.FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			break
		}
		for _, m := range found {
			all = append(all, link{m[3], m[2], m[1] == "!"})
		}
		text = markdown.ReplaceAllString(text, "")
	}
	return all
}

// follow says what is wrong with a link of a page, or nothing. Links to elsewhere are not
// followed.
func follow(t *testing.T, page, target string) string {
	t.Helper()
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	path, heading, _ := strings.Cut(target, "#")
	file := page
	if path != "" {
		file = filepath.Join(filepath.Dir(page), path)
	}
	if rel, err := filepath.Rel("../../..", file); err != nil || strings.HasPrefix(rel, "..") || filepath.IsAbs(path) {
		return target + " leads out of the project"
	}
	if _, err := os.Stat(file); err != nil {
		return target + " is not there"
	}
	if heading != "" && !slices.Contains(anchors(read(t, file)), heading) {
		return target + ": " + file + " has no such heading"
	}
	return ""
}

// anchors are the names by which the headings of a page are linked to, as GitHub makes them.
func anchors(text string) []string {
	var all []string
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		all = append(all, anchor(m[1]))
	}
	return all
}

func anchor(heading string) string {
	heading = strings.ReplaceAll(strings.ToLower(heading), " ", "-")
	return regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(heading, "")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
