package inbox

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// cidURL finds the URLs by which HTML and its style show other parts of the mail (RFC 2392).
var cidURL = regexp.MustCompile(`(?i)\bcid:[^\s"'<>()\\]+`)

// remoteURL finds pictures on other servers.
var remoteURL = regexp.MustCompile(`(?i)(?:\b(?:src|background)\s*=\s*["']?\s*|url\(\s*["']?\s*)(?:https?:)?//`)

// namesRemote reports whether HTML has pictures on other servers.
func namesRemote(content []byte) bool { return remoteURL.Match(content) }

// shownInside returns the indexes of the pictures that a mail's HTML shows: they are no attachments.
func shownInside(parts []catcher.Part) []int {
	var shown []int
	for _, p := range parts {
		if !p.Text || p.MediaType != "text/html" {
			continue
		}
		for _, ref := range cidURL.FindAllString(html.UnescapeString(string(p.Content)), -1) {
			if i := findCID(parts, ref); i >= 0 {
				shown = append(shown, i)
			}
		}
	}
	return shown
}

// findCID returns the index of the picture that a cid: URL names, or -1. A Content-ID is compared as it is; some programs escape it in the
// URL and some write it in other letters. A picture without one is found by its file name, which is how some programs
// attach those that they show.
func findCID(parts []catcher.Part, ref string) int {
	id := ref[len("cid:"):]
	if unescaped, err := url.PathUnescape(id); err == nil {
		id = unescaped
	}
	id = strings.Trim(id, "<>")
	is := func(same func(p catcher.Part) bool) int {
		return slices.IndexFunc(parts, func(p catcher.Part) bool {
			return !p.Text && strings.HasPrefix(p.MediaType, "image/") && id != "" && same(p)
		})
	}
	if i := is(func(p catcher.Part) bool { return p.ContentID == id }); i >= 0 {
		return i
	}
	if i := is(func(p catcher.Part) bool { return strings.EqualFold(p.ContentID, id) }); i >= 0 {
		return i
	}
	return is(func(p catcher.Part) bool { return p.ContentID == "" && p.Filename == id })
}

// maxInside is how many bytes of pictures are put into HTML, all together: a mail may name one a thousand times.
const maxInside = 64 << 20

// inside puts the pictures of a mail into its HTML.
type inside struct {
	parts []catcher.Part
	left  int // of maxInside
}

// dataURL returns a picture as a data: URL, which makes no connection, or "" if the mail has none of that name.
func (s *inside) dataURL(ref string) string {
	i := findCID(s.parts, ref)
	if i < 0 || len(s.parts[i].Content) > s.left {
		return ""
	}
	p := s.parts[i]
	s.left -= len(p.Content)
	return "data:" + p.MediaType + ";base64," + base64.StdEncoding.EncodeToString(p.Content)
}

// style puts the pictures into a style.
func (s *inside) style(text string) string {
	if len(s.parts) == 0 || !strings.Contains(strings.ToLower(text), "cid:") {
		return text
	}
	return cidURL.ReplaceAllStringFunc(text, func(ref string) string {
		if data := s.dataURL(ref); data != "" {
			return data
		}
		return ref
	})
}

// readable is the text of a part as a person reads it: of HTML without its tags.
func readable(p catcher.Part) string {
	if p.MediaType != "text/html" {
		return string(p.Content)
	}
	var b strings.Builder
	hide := atom.Atom(0)
	for z := html.NewTokenizer(strings.NewReader(string(p.Content))); ; {
		switch z.Next() {
		case html.ErrorToken:
			return b.String()
		case html.StartTagToken:
			if name, _ := z.TagName(); hide == 0 {
				if a := atom.Lookup(name); a == atom.Style || a == atom.Script || a == atom.Title {
					hide = a
				}
				b.WriteByte(' ')
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); hide != 0 && atom.Lookup(name) == hide {
				hide = 0
			}
		case html.TextToken:
			if hide == 0 {
				b.Write(z.Text())
			}
		}
	}
}
