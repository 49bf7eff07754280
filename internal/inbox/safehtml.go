package inbox

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// The HTML of a mail is a stranger's. A policy keeps it from loading anything, but a browser
// connects to servers for other reasons too, which no policy stops: <link rel="preconnect">,
// rel="dns-prefetch", and whatever is invented next. So only what is known to make no
// connection is shown: it is built anew from elements and attributes that are listed here.
// The page that names servers in its source link has the mail as it is.

// kept are the elements that are shown. Of any other one its content is shown in its place.
var kept = atoms(atom.A, atom.Abbr, atom.Address, atom.Article, atom.Aside, atom.B, atom.Bdi, atom.Bdo, atom.Big, atom.Blockquote, atom.Body,
	atom.Br, atom.Caption, atom.Cite, atom.Code, atom.Col, atom.Colgroup, atom.Dd, atom.Del, atom.Details, atom.Dfn, atom.Div,
	atom.Center, //nolint:misspell // HTML's word
	atom.Dl, atom.Dt, atom.Em, atom.Figcaption, atom.Figure, atom.Font, atom.Footer, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6,
	atom.Head, atom.Header, atom.Hr, atom.Html, atom.I, atom.Img, atom.Ins, atom.Kbd, atom.Li, atom.Main, atom.Mark, atom.Nav, atom.Ol, atom.P,
	atom.Pre, atom.Q, atom.S, atom.Samp, atom.Section, atom.Small, atom.Span, atom.Strike, atom.Strong, atom.Style, atom.Sub, atom.Summary,
	atom.Sup, atom.Table, atom.Tbody, atom.Td, atom.Tfoot, atom.Th, atom.Thead, atom.Time, atom.Tr, atom.Tt, atom.U, atom.Ul, atom.Var, atom.Wbr)

// hidden are the elements that are left out with all that is in them: it is not for people,
// or a browser might read it in another way than our parser.
var hidden = atoms(atom.Applet, atom.Audio, atom.Canvas, atom.Embed, atom.Frame, atom.Frameset, atom.Iframe, atom.Link, atom.Math, atom.Meta,
	atom.Noembed, atom.Noframes, atom.Noscript, atom.Object, atom.Plaintext, atom.Script, atom.Select, atom.Svg, atom.Template, atom.Textarea,
	atom.Title, atom.Video, atom.Xmp)

// harmless are the attributes that are kept on any element. src and href have rules of their own.
var harmless = []string{
	"abbr", "align", "alt", "bgcolor", "border", "cellpadding", "cellspacing", "class", "cols", "colspan", "dir", "face", "frame",
	"headers", "height", "hspace", "id", "lang", "nowrap", "open", "reversed", "role", "rows", "rowspan", "rules", "scope", "size", "span", "start",
	"style", "summary", "title", "type", "valign", "value", "vspace", "width",
	"color", //nolint:misspell // HTML's word
}

func atoms(list ...atom.Atom) map[atom.Atom]bool {
	set := make(map[atom.Atom]bool, len(list))
	for _, a := range list {
		set[a] = true
	}
	return set
}

// sanitizer copies what is shown of a mail's HTML.
type sanitizer struct {
	inside inside
	remote bool // pictures on other servers are asked for
}

// harmlessHTML is a mail's HTML without what could make a browser connect by itself, with the pictures
// that its parts have. remote leaves it the pictures on other servers.
func harmlessHTML(content []byte, parts []catcher.Part, remote bool) ([]byte, error) {
	page, err := html.Parse(bytes.NewReader(content))
	if err != nil {
		return nil, err // nested too deeply
	}
	s := sanitizer{inside{parts, maxInside}, remote}
	shown := &html.Node{Type: html.DocumentNode}
	s.copyChildren(shown, page)
	var out bytes.Buffer
	err = html.Render(&out, shown)
	return out.Bytes(), err
}

// copyChildren copies what is shown of a node's children.
func (s *sanitizer) copyChildren(to, from *html.Node) {
	for n := range from.ChildNodes() {
		switch {
		case n.Type == html.TextNode && from.DataAtom == atom.Style:
			to.AppendChild(&html.Node{Type: html.TextNode, Data: s.inside.style(n.Data)})
		case n.Type == html.TextNode:
			to.AppendChild(&html.Node{Type: html.TextNode, Data: n.Data})
		case n.Type != html.ElementNode, n.Namespace != "", hidden[n.DataAtom]:
			// comments, which old browsers read as conditions, and SVG and MathML, which have links and scripts of their own
		case kept[n.DataAtom]:
			copied := &html.Node{Type: html.ElementNode, Data: n.Data, DataAtom: n.DataAtom, Attr: s.attributes(n)}
			to.AppendChild(copied)
			s.copyChildren(copied, n)
		default:
			s.copyChildren(to, n)
		}
	}
}

// attributes returns the harmless attributes of an element.
func (s *sanitizer) attributes(n *html.Node) []html.Attribute {
	var list []html.Attribute
	for _, a := range n.Attr {
		value, ok := a.Val, slices.Contains(harmless, a.Key)
		switch a.Key {
		case "href":
			ok = n.DataAtom == atom.A && begins(a.Val, "https:", "http:", "mailto:", "tel:", "#")
		case "src":
			value = s.picture(a.Val)
			ok = n.DataAtom == atom.Img && value != ""
		case "background":
			value = s.picture(a.Val)
			ok = value != ""
		case "style":
			value = s.inside.style(a.Val)
		}
		if ok && a.Namespace == "" {
			list = append(list, html.Attribute{Key: a.Key, Val: value})
		}
	}
	return list
}

// picture returns the URL by which a picture is shown, or "".
func (s *sanitizer) picture(url string) string {
	url = strings.TrimSpace(url)
	switch {
	case begins(url, "data:image/"):
		return url
	case begins(url, "cid:"):
		return s.inside.dataURL(url)
	case s.remote && begins(url, "https://", "http://", "//"):
		return url
	}
	return ""
}

// begins reports whether a URL begins in one of these ways.
func begins(url string, ways ...string) bool {
	url = strings.ToLower(strings.TrimSpace(url))
	return slices.ContainsFunc(ways, func(way string) bool { return strings.HasPrefix(url, way) })
}
