package inbox

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

func TestHarmlessHTML(t *testing.T) {
	t.Parallel()
	const frame = "<html><head></head><body>"
	for _, tt := range []struct{ name, give, want string }{
		{"text", "a &lt;b&gt; &amp; ü", frame + "a &lt;b&gt; &amp; ü"},
		{"what a mail is made of", `<table width="600" style="margin:0"><tbody><tr><td class="x" bgcolor="#fff">a</td></tr></tbody></table>`,
			frame + `<table width="600" style="margin:0"><tbody><tr><td class="x" bgcolor="#fff">a</td></tr></tbody></table>`},
		{"a style sheet", "<head><style>p > b { margin: 0 }</style></head><p>a", "<html><head><style>p > b { margin: 0 }</style></head><body><p>a</p>"},
		{"a link", `<a href="https://shop.example/?a=1&amp;b" target="_self" ping="https://x.example" onclick="x()">a</a>`, frame + `<a href="https://shop.example/?a=1&amp;b">a</a>`},
		{"a script in a link", `<a href=" JavaScript:alert(1)">a</a>`, frame + "<a>a</a>"},
		{"a picture inside", `<img alt="a" src="data:image/png;base64,AA==">`, frame + `<img alt="a" src="data:image/png;base64,AA=="/>`},
		{"a picture elsewhere", `<img alt="a" src="https://x.example/a.png" srcset="https://x.example/b.png" width="3">`, frame + `<img alt="a" width="3"/>`},
		{"an element nobody knows", "<o:p>a</o:p><blink>b</blink><form action='https://x.example'>c</form>", frame + "abc"},
		{"connections", `<link rel="preconnect" href="https://x.example"><base href="https://x.example/"><meta http-equiv="refresh" content="0;url=https://x.example">a`, frame + "a"},
		{"in another document", `<iframe srcdoc="<link rel=preconnect href=//x.example>"></iframe><object data="//x.example">o</object><template><link></template>a`, frame + "a"},
		{"out of a picture", `<svg><style><p><link rel="preconnect" href="//x.example"></p></style></svg>a`, frame + "<p></p>a"},
		{"out of mathematics", `<math><mtext><style><!--</style><link rel="preconnect" href="//x.example">--></style>a`, frame},
		{"out of raw text", `<noscript><p title="</noscript><link rel=preconnect href=//x.example>">a</noscript>`, frame + `&#34;&gt;a`},
		{"a comment", `<!--[if mso]><link rel="preconnect" href="//x.example"><![endif]-->a`, frame + "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := harmlessHTML([]byte(tt.give), nil, false)
			if want := tt.want + "</body></html>"; err != nil || string(got) != want {
				t.Errorf("got  %s, %v\nwant %s", got, err, want)
			}
		})
	}
}

// FuzzHarmlessHTML: whatever comes in, a second reader of what goes out finds nothing in it
// that is not listed.
func FuzzHarmlessHTML(f *testing.F) {
	f.Add(`<svg><style><p><link rel="preconnect" href="//x.example">`)
	f.Add(`<math><mtext><table><mglyph><style><!--</style><link rel=preconnect href=//x.example>`)
	f.Add(`<table><a><style></table><pre>` + "\n\n" + `<li><font><p><base>`)
	f.Add(strings.Repeat("<div>", 100) + "<frameset><noscript><style></noscript>")
	f.Fuzz(func(t *testing.T, s string) {
		shown, err := harmlessHTML([]byte(s), nil, false)
		if err != nil {
			return
		}
		read, err := html.Parse(bytes.NewReader(shown))
		if err != nil {
			return
		}
		for n := range read.Descendants() {
			if n.Type == html.CommentNode || n.Type == html.ElementNode && (n.Namespace != "" || !kept[n.DataAtom]) {
				t.Errorf("%q becomes %q, which has %q", s, shown, n.Data)
			}
			for _, a := range n.Attr {
				if a.Key != "href" && a.Key != "src" && a.Key != "background" && !slices.Contains(harmless, a.Key) || (a.Key == "src" || a.Key == "background") && !begins(a.Val, "data:image/") {
					t.Errorf("%q becomes %q, with %s=%q", s, shown, a.Key, a.Val)
				}
			}
		}
	})
}
