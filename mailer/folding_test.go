package mailer_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// foldings are texts of n bytes or little more, of each kind that is folded in a way of its own.
var foldings = []struct {
	name  string
	class string // "address", or "text", which any field of free text takes
	most  int    // up to which length it must not be refused
	text  func(n int) string
}{
	{"a bare address", "address", 254, func(n int) string { return addressOf(min(n, 254)) }},
	{"a name without a break", "address", 960, func(n int) string { return strings.Repeat("n", n) + " <b@example.com>" }},
	{"a quoted name without a break", "address", 960, func(n int) string { return `"` + strings.Repeat("n.", n/2) + `" <b@example.com>` }},
	{"a quoted name with blanks at its beginning", "address", 700, func(n int) string {
		return `"` + strings.Repeat(" ", n/2) + strings.Repeat("n.", n/4) + `" <b@example.com>`
	}},
	{"a name of words", "address", 1010, func(n int) string { return strings.Repeat("Name ", n/5) + "<b@example.com>" }},
	{"a name with one long word", "address", 960, func(n int) string { return "Ann " + strings.Repeat("n", n) + " B <b@example.com>" }},
	{"a name beyond ASCII", "address", 1010, func(n int) string { return `"` + strings.Repeat("\u00fc", n/2) + `" <b@example.com>` }},
	{"a name and a long address", "address", 1010, func(n int) string { return "Ann B <" + addressOf(min(n, 254)) + ">" }},
	{"a name beyond ASCII and a long address", "address", 1010, func(n int) string { return "\u00c4nn <" + addressOf(min(n, 254)) + ">" }},
	{"a name that is encoded", "address", 960, func(n int) string { return "=?utf-8?q?" + strings.Repeat("n", n) + "?= <b@example.com>" }},
	{"a comment", "address", 960, func(n int) string { return "b@example.com (" + strings.Repeat("c", n) + ")" }},
	{"a comment of words", "address", 1010, func(n int) string { return "b@example.com (" + strings.Repeat("word ", n/5) + "end)" }},
	{"a comment with a gap", "address", 960, func(n int) string { return "b@example.com (a" + strings.Repeat(" ", n) + "b)" }},

	{"a token", "text", 960, func(n int) string { return strings.Repeat("t", n) }},
	{"a token between words", "text", 960, func(n int) string { return "a " + strings.Repeat("t", n) + " b" }},
	{"words", "text", 1010, func(n int) string { return strings.Repeat("word ", n/5) + "end" }},
	{"a gap", "text", 960, func(n int) string { return "a" + strings.Repeat(" ", n) + "b" }},
	{"blanks at the beginning", "text", 900, func(n int) string { return strings.Repeat(" \t", n/2) + "b" }},
	{"blanks at the end", "text", 960, func(n int) string { return "a" + strings.Repeat(" ", n) }},
	{"blanks alone", "text", 960, func(n int) string { return strings.Repeat(" ", n) }},
	{"encoded words", "text", 1010, func(n int) string { return strings.Repeat("\u00fc", n/2) }},
	{"encoded words of blanks", "text", 1010, func(n int) string { return strings.Repeat(" ", n) + "\u00fc" }},
	{"an encoded word of the author's", "text", 960, func(n int) string { return "=?utf-8?q?" + strings.Repeat("n", n) + "?=" }},
}

// addressOf is an address of n bytes, 60 to 254 of them.
func addressOf(n int) string {
	local := strings.Repeat("l", min(n-20, 64))
	domain := ""
	for rest := n - len(local) - len("@") - len(".example"); rest > 0; {
		label := min(rest, 60)
		if left := rest - label; left == 1 { // no room for a dot and a label
			label--
		}
		domain += strings.Repeat("d", label) + "."
		rest -= label + 1
	}
	return local + "@" + strings.TrimSuffix(domain, ".") + ".example"
}

// TestHeader_folding puts texts of every length into every field, and demands that all
// fields are found with what was given.
func TestHeader_folding(t *testing.T) {
	t.Parallel()
	places := []struct {
		name  string
		class string
		put   func(m *mailer.EmailMessage, text string)
	}{
		{"from", "address", func(m *mailer.EmailMessage, s string) { m.FromEmail = s }},
		{"to, the first", "address", func(m *mailer.EmailMessage, s string) { m.To = []string{s, "ann@example.com"} }},
		{"to, the second", "address", func(m *mailer.EmailMessage, s string) { m.To = []string{"ann@example.com", s} }},
		{"cc, all", "address", func(m *mailer.EmailMessage, s string) { m.Cc = []string{s, s, s} }},
		{"reply_to, between others", "address", func(m *mailer.EmailMessage, s string) {
			m.ReplyTo = []string{"ann@example.com", s, "Bob <bob@example.com>"}
		}},
		{"headers[From]", "address", func(m *mailer.EmailMessage, s string) { m.Headers["From"] = "Ann <ann@example.com>, " + s }},
		{"headers[resent-to]", "address", func(m *mailer.EmailMessage, s string) {
			m.Headers["resent-to"] = s + ", \u00c4nn <ann@example.com>," + s
		}},
		{"subject", "text", func(m *mailer.EmailMessage, s string) { m.Subject = s }},
		{"headers[X-Test]", "text", func(m *mailer.EmailMessage, s string) { m.Headers["X-Test"] = s }},
		{"a field with a long name", "text", func(m *mailer.EmailMessage, s string) {
			m.Headers["X-"+strings.Repeat("n", 74)] = s
		}},
		{"headers[To], a group", "address", func(m *mailer.EmailMessage, s string) {
			m.Headers["To"] = "Friends: " + s + ", bob@example.com;, cid@example.com"
		}},
		{"headers[List-ID]", "text", func(m *mailer.EmailMessage, s string) {
			m.Headers["List-ID"] = "\u00dc " + strings.ReplaceAll(s, "=?", "") + " <news.example.com>"
		}},
		{"headers[Keywords]", "text", func(m *mailer.EmailMessage, s string) { m.Headers["Keywords"] = "a, " + s + ", \u00fc" }},
		{"headers[X-Priority], a comment", "text", func(m *mailer.EmailMessage, s string) { m.Headers["X-Priority"] = "1 (" + s + ")" }},
	}
	for _, place := range places {
		for _, kind := range foldings {
			if kind.class != place.class {
				continue
			}
			t.Run(place.name+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				for n := range lengths() {
					m := message(func(m *mailer.EmailMessage) { place.put(m, kind.text(n)) })
					var b bytes.Buffer
					if _, err := m.WriteTo(&b); err != nil {
						if !mailer.IsBadInput(err) || n <= kind.most-150 {
							t.Fatalf("%d bytes: %v", n, err)
						}
						continue
					}
					checkLengths(t, b.String())
					checkFields(t, m, b.String())
				}
			})
		}
	}
}

// lengths are those from 60 to 1010 where lines get full, and some of the others.
func lengths() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for n := 60; n <= 1010; n++ {
			near := n < 170 || 485 < n && n < 515 || n > 970
			if (near || n%13 == 0) && !yield(n) {
				return
			}
		}
	}
}

func checkLengths(t testing.TB, rendered string) {
	t.Helper()
	for line := range strings.SplitSeq(rendered, "\r\n") {
		if len(line) > 998 {
			t.Fatalf("has a line of %d bytes", len(line))
		}
	}
}

// The parameters and IDs of parts are folded too, and their fields must be found.
func TestHeader_foldingOfParts(t *testing.T) {
	t.Parallel()
	for n := range lengths() {
		id := min(n, 300)
		for _, c := range []string{"a", "a b", "\u00fc", `"`} {
			name := strings.Repeat(c, n/len(c))
			m := message(withAlternative("<p>", "text/html; x="+strings.Repeat("v", max(id-20, 1))), func(m *mailer.EmailMessage) {
				m.Attachments = []mailer.Attachment{
					{Filename: name, Content: []byte("x"), Mimetype: "application/x-a; p=" + strings.Repeat("p", max(id-40, 1)) + "; q=1"},
					{Filename: "b", ContentID: strings.Repeat("i", id), Content: []byte("y")},
				}
			})
			rendered := render(t, m)
			checkLengths(t, rendered)
			checkFields(t, m, rendered)
			checkFiles(t, m, rendered)
			checkParts(t, rendered)
		}
	}
}

// checkParts demands that each part of a multipart has a header without a blank line in it, by
// the fields that stand at the end of every one.
func checkParts(t testing.TB, rendered string) {
	t.Helper()
	for _, p := range leaves(parse(t, rendered)) {
		if p.header.Get("Content-Type") == "" || p.header.Get("Content-Transfer-Encoding") == "" {
			t.Fatalf("a part has the fields %v alone:\n%q", p.header, rendered)
		}
	}
}

func leaves(n node) []node {
	if n.parts == nil {
		return []node{n}
	}
	var all []node
	for _, p := range n.parts {
		all = append(all, leaves(p)...)
	}
	return all
}

// What a raw message has in its header is folded where it is written anew.
func TestRaw_folding(t *testing.T) {
	t.Parallel()
	for _, kind := range foldings {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for n := range lengths() {
				name := map[string]string{"address": "Cc", "text": "X-Test"}[kind.class]
				text := kind.text(n)
				for _, value := range []string{text, "\u00c4nn <a@example.com>, " + text, text + ",\n \t\n \u00c4nn <a@example.com>"} {
					raw := fmt.Sprintf("%s%s: %s\nSubject: last\n\nbody\n", rawHead, name, value)
					var b bytes.Buffer
					if _, err := rawMessage(raw).WriteTo(&b); err != nil {
						if !mailer.IsBadInput(err) || n <= kind.most-150 {
							t.Fatalf("%d bytes: %v", n, err)
						}
						continue
					}
					checkLengths(t, b.String())
					checkRawFields(t, []byte(raw), b.String())
				}
			}
		})
	}
}

// A value that was percent-encoded in a raw message may hold line ends. They must not end the
// field when it is written anew.
func TestRaw_parameterWithLineEnds(t *testing.T) {
	raw := rawHead + "Content-Disposition: attachment; name=\"\u00e9\"; filename*=utf-8''a%0D%0A%0D%0AX-Evil%3A%20b\n\nbody"
	got := renderRaw(t, rawMessage(raw))
	checkRawFields(t, []byte(raw), got)
	if !strings.HasSuffix(got, "\r\n\r\nbody") || strings.Contains(got, "X-Evil: ") {
		t.Errorf("got\n%q", got)
	}
}

// A charset's name comes from the list of charsets: with what an author may write around it, an
// encoded word would have room for no character, and no end.
func TestHeader_charsetWithBlanks(t *testing.T) {
	m := message(func(m *mailer.EmailMessage) {
		m.Subject, m.Charset = "Gr\u00fc\u00dfe", "replacement"+strings.Repeat(" ", 100)
	})
	if err := m.Validate(); err != nil && !mailer.IsBadInput(err) {
		t.Error(err)
	}
}
