package inbox

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

func picture(id, filename, content string) catcher.Part {
	return catcher.Part{MediaType: "image/png", ContentID: id, Filename: filename, Content: []byte(content)}
}

// The pictures of a mail are shown where its HTML names them, however their names are written.
func TestHarmlessHTML_pictures(t *testing.T) {
	t.Parallel()
	parts := []catcher.Part{
		{MediaType: "text/html", Text: true}, picture("logo@shop", "logo.png", "one"), picture("8547-fdbb@834=", "x.png", "two"), picture("", "by-name.png", "three"),
		{MediaType: "application/pdf", ContentID: "bill", Content: []byte("pdf")}, {MediaType: "text/html", ContentID: "page", Content: []byte("<b>")},
	}
	data := func(content string) string {
		return "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(content))
	}
	const remote = `<img src="https://x.example/a.png"><img src="//x.example/b.png"><td background="http://x.example/c.png"></td>`
	for _, tt := range []struct {
		name, give string
		remote     bool
		want, not  string
	}{
		{"a picture", `<img src="cid:logo@shop">`, false, `src="` + data("one") + `"`, "cid:"},
		{"escaped", `<img src="CID:logo%40shop">`, false, data("one"), ""},
		{"in other letters", `<img src="cid:LOGO@SHOP">`, false, data("one"), ""},
		{"with an equals sign", `<img src="cid:8547-fdbb@834=" alt="x"/>`, false, data("two"), ""},
		{"by its file's name", `<img src="cid:by-name.png">`, false, data("three"), ""},
		{"a background", `<table><tr><td background="cid:logo@shop">a</td></tr></table>`, false, `background="` + data("one") + `"`, ""},
		{"in a style", `<p style="background: url('cid:logo@shop') no-repeat">a</p>`, false, `url(&#39;` + data("one") + `&#39;)`, ""},
		{"in a style sheet", `<style>.a { background: url(cid:logo@shop) }</style>`, false, "url(" + data("one") + ")", ""},
		{"one that is not there", `<img src="cid:other" alt="a">`, false, `<img alt="a"/>`, "cid:"},
		{"no name", `<img src="cid:" alt="a">`, false, `<img alt="a"/>`, "data:"},
		{"not a picture", `<img src="cid:bill" alt="a"><img src="cid:page">`, false, `<img alt="a"/>`, "data:"},
		{"elsewhere", remote, false, "<img/>", "x.example"},
		{"elsewhere, asked for", `<table><tr>` + remote + `</tr></table>`, true, `<img src="//x.example/b.png"/>`, ""},
		{"asked for, and no picture", `<img src="javascript:alert(1)" alt="a"><a href="https://x.example">a</a><iframe src="https://x.example"></iframe>`, true, `<img alt="a"/>`, "iframe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := harmlessHTML([]byte(tt.give), parts, tt.remote)
			if err != nil || !strings.Contains(string(got), tt.want) || tt.not != "" && strings.Contains(string(got), tt.not) {
				t.Errorf("got %s, %v\nwant %s", got, err, tt.want)
			}
		})
	}
}

// A mail that names a big picture a thousand times costs no more memory than one that names a few.
func TestHarmlessHTML_bounded(t *testing.T) {
	t.Parallel()
	parts := []catcher.Part{picture("a", "", strings.Repeat("x", 10<<20))}
	got, err := harmlessHTML(bytes.Repeat([]byte(`<img src="cid:a">`), 1000), parts, false)
	if err != nil || len(got) > 2*maxInside || bytes.Count(got, []byte("data:")) != maxInside/(10<<20) {
		t.Errorf("%d bytes with %d pictures: %v", len(got), bytes.Count(got, []byte("data:")), err)
	}
}

func TestShownInside(t *testing.T) {
	t.Parallel()
	html := catcher.Part{MediaType: "text/html", Text: true, Content: []byte(`<img src="cid:a"><p style="background:url(cid:b&#64;c)">cid:d`)}
	parts := []catcher.Part{html, picture("a", "", ""), picture("b@c", "", ""), picture("e", "", ""), {MediaType: "application/pdf", ContentID: "d"}}
	if got := shownInside(parts); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("got %v", got)
	}
}

func TestReadable(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		"<p>a<b>b</b></p><p>c &amp; d</p>": "ab c & d", "<style>p{}</style><script>x</script><title>t</title>a": "a", "a < b": "a < b", "": "",
	} {
		got := strings.Join(strings.Fields(readable(catcher.Part{MediaType: "text/html", Content: []byte(give)})), " ")
		if got != want {
			t.Errorf("%q: %q, want %q", give, got, want)
		}
	}
}

func TestSnippet(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		"a\r\n  b": "a b", "": "", strings.Repeat("ä", 100): strings.Repeat("ä", 100), strings.Repeat("x", 199) + "ä": strings.Repeat("x", 199) + "…",
	} {
		if got := snippet(give); got != want {
			t.Errorf("%q: %q, want %q", give, got, want)
		}
	}
}
