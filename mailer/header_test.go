package mailer_test

import (
	"mime"
	"net/mail"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestHeader_text(t *testing.T) {
	tests := []struct {
		name  string
		value string
		want  string
	}{
		{name: "plain", value: "1", want: "1"},
		{name: "empty", value: "", want: ""},
		{name: "tab", value: "a\tb", want: "a\tb"},
		{name: "own encoded word", value: "=?utf-8?q?a?=", want: "=?utf-8?q?a?="},
		{name: "folded", value: strings.Repeat("word ", 20) + "end", want: strings.Repeat("word ", 13) + "word\r\n word word word word word word end"},
		{name: "folded before runs of blanks", value: strings.Repeat("x", 60) + strings.Repeat(" ", 20) + "y", want: strings.Repeat("x", 60) + "\r\n" + strings.Repeat(" ", 20) + "y"},
		{name: "blanks at the end", value: strings.Repeat("x", 70) + strings.Repeat(" ", 20), want: strings.Repeat("x", 70) + strings.Repeat(" ", 20)},
		{name: "long word stays whole", value: "<https://example.com/" + strings.Repeat("u", 500) + ">", want: "<https://example.com/" + strings.Repeat("u", 500) + ">"},
		{name: "words after a long word", value: strings.Repeat("u", 500) + " b", want: strings.Repeat("u", 500) + "\r\n b"},
		{name: "beyond ASCII", value: "Gr\u00fc\u00dfe an alle Leser in aller Welt", want: "=?utf-8?q?Gr=C3=BC=C3=9Fe_an_alle_Leser_in_aller_Welt?="},
		{name: "mostly beyond ASCII", value: "\u65e5\u672c\u8a9e", want: "=?utf-8?b?5pel5pys6Kqe?="},
		{name: "special characters", value: "\u00e9 ?=_, and plain text", want: "=?utf-8?q?=C3=A9_=3F=3D=5F,_and_plain_text?="},
		{name: "line separators", value: "the first line\u2028the second line\u0085", want: "=?utf-8?q?the_first_line=E2=80=A8the_second_line=C2=85?="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(withHeader("X-Test", tt.value)))
			if got := rawHeader(t, rendered, "X-Test"); got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

var encodedWord = regexp.MustCompile(`=\?([^?]+)\?[bq]\?[^? ]*\?=`)

// TestHeader_encodedWords holds the rules of RFC 2047 for texts of every kind.
func TestHeader_encodedWords(t *testing.T) {
	texts := []string{
		"Gr\u00fc\u00dfe", strings.Repeat("Gr\u00fc\u00dfe aus K\u00f6ln ", 20), strings.Repeat("\u65e5\u672c\u8a9e", 60),
		strings.Repeat("\U0001F600", 40), strings.Repeat("a\u00e9", 300), " \u00e9 ", "\u00e9" + strings.Repeat(" ", 200) + "x",
		strings.Repeat("x", 1500), strings.Repeat("x", 1500) + "\u00e9", strings.Repeat(" ", 1500) + "x",
		"\u3053\u3093\u306b\u3061\u306f, hello \u4e16\u754c and so on, \u65e5\u672c\u8a9e\u306e\u4ef6\u540d\u306f\u9577\u3044\u3067\u3059\u306d\u3048\u672c\u5f53\u306b\u9577\u3044",
	}
	for _, charset := range []string{"", "iso-8859-1", "iso-2022-jp", "shift_jis", "us-ascii", "utf-16"} {
		for _, text := range texts {
			m := message(func(m *mailer.EmailMessage) {
				m.Subject, m.Charset, m.ReplyTo = text, charset, []string{"a@example.com", `"` + text + `" <b@example.com>`}
			})
			rendered := render(t, m)
			parsed, err := mail.ReadMessage(strings.NewReader(rendered))
			if err != nil {
				t.Fatal(err)
			}
			if got := decodeWords(t, parsed.Header.Get("Subject")); strings.TrimLeft(got, " ") != strings.TrimLeft(text, " ") {
				t.Errorf("%s: got %q, want %q", charset, got, text)
			}
			list, err := (&mail.AddressParser{WordDecoder: decoder()}).ParseList(parsed.Header.Get("Reply-To"))
			if err != nil || len(list) != 2 || list[1].Name != text {
				t.Errorf("%s: got %v, %v, want %q", charset, list, err, text)
			}
			checkWords(t, rendered)
		}
	}
}

func checkWords(t *testing.T, rendered string) {
	t.Helper()
	for line := range strings.SplitSeq(rendered, "\r\n") {
		for _, word := range encodedWord.FindAllString(line, -1) {
			if len(word) > 75 {
				t.Errorf("word of %d characters: %s", len(word), word)
			}
			if len(line) > 76 {
				t.Errorf("line of %d characters: %s", len(line), line)
			}
			if text, err := decoder().Decode(word); err != nil || !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
				t.Errorf("word is not whole: %s: %q, %v", word, text, err)
			}
		}
	}
}

func decodeWords(t *testing.T, s string) string {
	t.Helper()
	text, err := decoder().DecodeHeader(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestHeader_overrides(t *testing.T) {
	for _, name := range []string{"From", "To", "Cc", "Reply-To", "Date", "Message-ID"} {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			value := "Other <other@example.com>"
			switch name {
			case "Message-ID":
				value = "<other@example.com>"
			case "Date":
				value = "Sat, 3 Jan 2026 03:04:05 EST"
			}
			m := message(withHeader(spelling, value), func(m *mailer.EmailMessage) {
				m.Cc, m.ReplyTo = []string{"cc@example.com"}, []string{"reply@example.com"}
			})
			rendered := render(t, m)
			if got := rawHeader(t, rendered, name); got != value {
				t.Errorf("%s: got %q", spelling, got)
			}
			if n := strings.Count(strings.ToLower(rendered), "\n"+strings.ToLower(name)+":"); n > 1 || name != "From" && n != 1 {
				t.Errorf("%s is there %d times", spelling, n)
			}
		}
	}
}

func TestHeader_emptyOverrides(t *testing.T) {
	m := message(withHeader("To", ""), withHeader("From", ""), withHeader("date", ""), withHeader("message-id", ""))
	rendered := render(t, m)
	for name, want := range map[string]string{
		"From": "from@example.com", "To": "", "Date": "Fri, 02 Jan 2026 03:04:05 +0000", "Message-ID": "<fixed@example.com>",
	} {
		if got := rawHeader(t, rendered, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if strings.Contains(rendered, "To:") {
		t.Error("there is an empty To")
	}
}

func TestHeader_addresses(t *testing.T) {
	tests := []struct {
		name  string
		field string // of Headers
		value string
		want  string
	}{
		{"list", "Resent-To", "\u00dc <a@example.com>, b@example.com", "=?utf-8?b?w5w=?= <a@example.com>, b@example.com"},
		{"undisclosed", "To", "undisclosed-recipients:;", "undisclosed-recipients:;"},
		{"undisclosed, and others", "To", "undisclosed-recipients:;, a@example.com", "undisclosed-recipients:;, a@example.com"},
		{"groups", "Cc", "A: a@example.com, B <b@example.com>;,C:c@example.com; , D: ;", "A: a@example.com, B <b@example.com>;, C: c@example.com;, D:;"},
		{"group beyond ASCII", "To", "Fr\u00fchst\u00fcck: \u00dc <a@example.com>, b@example.com;", "=?utf-8?b?RnLDvGhzdMO8Y2s=?= : =?utf-8?b?w5w=?= <a@example.com>,\r\n b@example.com;"},
		{"group that is encoded", "To", "=?utf-8?q?=C3=BC?= : a@example.com;", "=?utf-8?q?=C3=BC?= : a@example.com;"},
		{"comment beyond ASCII", "To", "a@example.com (J\u00f6rg \\( x), b@example.com", "a@example.com (=?utf-8?b?SsO2cmcgKCB4?=), b@example.com"},
		{"name and comment beyond ASCII", "To", "J\u00f6rg (privat) <a@example.com> (\u00fc)", "=?utf-8?b?SsO2cmc=?= <a@example.com> (privat) (=?utf-8?b?w7w=?=)"},
		{"IDN", "Resent-To", "a@b\u00fccher.example,,", "a@xn--bcher-kva.example"},
		{"not folded in an address", "Cc", "a-rather-long-local-part@example.com, Some Name <another-rather-long-address@example.com>",
			"a-rather-long-local-part@example.com,\r\n Some Name <another-rather-long-address@example.com>"},
		{"long name", "Cc", strings.Repeat("Name ", 20) + "<a@example.com>",
			strings.TrimSuffix(strings.Repeat("Name ", 15), " ") + "\r\n " + strings.Repeat("Name ", 5) + "<a@example.com>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := rawHeader(t, render(t, message(withHeader(tt.field, tt.value))), tt.field); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeader_order(t *testing.T) {
	m := message(withHeader("x-b", "1"), withHeader("X-a", "2"), withHeader("LIST-ID", "3"))
	_, others, _ := strings.Cut(render(t, m), "<fixed@example.com>\r\n")
	if want := "LIST-ID: 3\r\nX-a: 2\r\nx-b: 1\r\nMIME-Version: 1.0\r\n"; !strings.HasPrefix(others, want) {
		t.Errorf("got %q, want %q", others, want)
	}
}

func TestHeader_filename(t *testing.T) {
	tests := []struct {
		name     string
		filename string
		want     string // Content-Disposition
		fallback string // name of the Content-Type
	}{
		{"plain", "a.pdf", "attachment; filename=a.pdf", ""},
		{"none", "", "attachment", ""},
		{"blanks", "a b.pdf", `attachment; filename="a b.pdf"`, ""},
		{"quotes", `a"b\c.pdf`, `attachment; filename="a\"b\\c.pdf"`, ""},
		{"beyond ASCII", "r\u00e9sum\u00e9 1.pdf", "attachment; filename*=utf-8''r%C3%A9sum%C3%A9%201.pdf", "r_sum_ 1.pdf"},
		{"percent", "100%\u00fc*'.pdf", "attachment; filename*=utf-8''100%25%C3%BC%2A%27.pdf", "100%_*'.pdf"},
		{"long", strings.Repeat("\u65e5", 90) + ".pdf", "attachment;\r\n filename*=utf-8''" + strings.Repeat("%E6%97%A5", 90) + ".pdf", strings.Repeat("_", 90) + ".pdf"},
		{"longest", strings.Repeat("\U0001f600", 255), continuation(255, "%F0%9F%98%80"), strings.Repeat("_", 255)},
		{"longest in ASCII", strings.Repeat("a", 1020), continuation(1020, "a"), ""},
		{"longest of quotes", strings.Repeat(`"`, 500), continuation(500, "%22"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(withAttachment(mailer.Attachment{Filename: tt.filename, Content: []byte("%PDF-1")})))
			checkLengths(t, rendered)
			if !strings.Contains(rendered, "Content-Disposition: "+tt.want+"\r\n") {
				t.Errorf("want %q in:\n%s", tt.want, rendered)
			}
			p := parse(t, rendered).leaf(1)
			if _, params, err := mime.ParseMediaType(p.header.Get("Content-Disposition")); err != nil || params["filename"] != tt.filename {
				t.Errorf("got %q, %v, want %q", params["filename"], err, tt.filename)
			}
			if p.params["name"] != tt.fallback {
				t.Errorf("fallback: got %q, want %q", p.params["name"], tt.fallback)
			}
		})
	}
}

// continuation is a file name of n equal characters, in lines of at most 78 bytes (RFC 2231, 3).
func continuation(n int, char string) string {
	var b strings.Builder
	b.WriteString("attachment")
	for i := 0; n > 0; i++ {
		line := "filename*" + strconv.Itoa(i) + "*="
		if i == 0 {
			line += "utf-8''"
		}
		fits := min((78-len(" ;")-len(line))/len(char), n)
		n -= fits
		b.WriteString(";\r\n " + line + strings.Repeat(char, fits))
	}
	return b.String()
}

// decoder reads every charset that messages are written in.
func decoder() *mime.WordDecoder {
	return &mime.WordDecoder{CharsetReader: charsetReader}
}
