package mailer_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestWriteTo_tree(t *testing.T) {
	html := withAlternative("<img src=cid:logo>", "text/html")
	calendar := withAlternative("BEGIN:VCALENDAR", "text/calendar; method=REQUEST")
	pdf := withAttachment(mailer.Attachment{Filename: "a.pdf", Content: []byte("%PDF-1")})
	logo := withAttachment(mailer.Attachment{Filename: "logo.png", Content: []byte("\x89PNG"), ContentID: "logo"})
	htmlOnly := func(m *mailer.EmailMessage) { m.ContentSubtype = "html" }
	empty := withBody("")
	tests := []struct {
		name   string
		change []func(m *mailer.EmailMessage)
		want   string
	}{
		{"text", nil, "text/plain"},
		{"nothing", []func(*mailer.EmailMessage){empty}, "text/plain"},
		{"html only", []func(*mailer.EmailMessage){htmlOnly}, "text/html"},
		{"alternative", []func(*mailer.EmailMessage){html}, "alternative[text/plain text/html]"},
		{"two alternatives", []func(*mailer.EmailMessage){html, calendar}, "alternative[text/plain text/html text/calendar]"},
		{"alternative without text", []func(*mailer.EmailMessage){empty, html}, "alternative[text/html]"},
		{"attachment", []func(*mailer.EmailMessage){pdf}, "mixed[text/plain application/pdf]"},
		{"attachment without text", []func(*mailer.EmailMessage){empty, pdf}, "mixed[application/pdf]"},
		{"alternative and attachment", []func(*mailer.EmailMessage){html, pdf}, "mixed[alternative[text/plain text/html] application/pdf]"},
		{"alternative and attachment without text", []func(*mailer.EmailMessage){empty, html, pdf}, "mixed[alternative[text/html] application/pdf]"},
		{"image", []func(*mailer.EmailMessage){html, logo}, "alternative[text/plain related[text/html image/png]]"},
		{"image and calendar", []func(*mailer.EmailMessage){html, calendar, logo}, "alternative[text/plain related[text/html image/png] text/calendar]"},
		{"image, html only", []func(*mailer.EmailMessage){htmlOnly, logo}, "related[text/html image/png]"},
		{"image without text", []func(*mailer.EmailMessage){empty, html, logo}, "alternative[related[text/html image/png]]"},
		{"image without html", []func(*mailer.EmailMessage){pdf, logo, pdf}, "mixed[text/plain application/pdf image/png application/pdf]"},
		{"all", []func(*mailer.EmailMessage){html, pdf, logo, pdf}, "mixed[alternative[text/plain related[text/html image/png]] application/pdf application/pdf]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(tt.change...))
			if got := parse(t, rendered).tree(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !strings.HasSuffix(rendered, "\r\n") {
				t.Error("the last line has no end")
			}
		})
	}
}

func TestWriteTo_body(t *testing.T) {
	tests := []struct {
		name     string
		body     string
		encoding string
		want     string // decoded
	}{
		{"ASCII", "a\r\n", "7bit", "a\r\n"},
		{"no line end", "a", "7bit", "a\r\n"},
		{"line ends of all kinds", "a\nb\r\nc\rd\n\re\r\r\n\n", "7bit", "a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\n\r\n"},
		{"ends with CR", "a\r", "7bit", "a\r\n"},
		{"other separators", "a\u2028b\u2029c\u0085d\vf\fg", "base64", "a\u2028b\u2029c\u0085d\vf\fg\r\n"},
		{"VT and FF", "a\vb\fc", "7bit", "a\vb\fc\r\n"},
		{"some letters", "Gr\u00fc\u00dfe aus K\u00f6ln am Rhein", "quoted-printable", "Gr\u00fc\u00dfe aus K\u00f6ln am Rhein\r\n"},
		{"many letters", "\u65e5\u672c\u8a9e", "base64", "\u65e5\u672c\u8a9e\r\n"},
		{"998 octets", strings.Repeat("x", 998), "7bit", strings.Repeat("x", 998) + "\r\n"},
		{"999 octets", strings.Repeat("x", 999), "quoted-printable", strings.Repeat("x", 999) + "\r\n"},
		{"NUL", "a\x00b, and more text", "quoted-printable", "a\x00b, and more text\r\n"},
		{"white space at the end of lines", "a \nb\t\n" + strings.Repeat("x", 999) + " \n", "quoted-printable", "a \r\nb\t\r\n" + strings.Repeat("x", 999) + " \r\n"},
		{"From and dots", "From me\n.\n..\n", "7bit", "From me\r\n.\r\n..\r\n"},
		{"a header", "Subject: no\n\nx", "7bit", "Subject: no\r\n\r\nx\r\n"},
		{"long base64", strings.Repeat("\u65e5\u672c\u8a9e\n", 2000), "base64", strings.Repeat("\u65e5\u672c\u8a9e\r\n", 2000)},
		{"one long line in base64", strings.Repeat("\u65e5\u672c\u8a9e", 9000), "base64", strings.Repeat("\u65e5\u672c\u8a9e", 9000) + "\r\n"},
		{"only line ends", "\n\r\n", "7bit", "\r\n\r\n"},
		{"nothing", "", "7bit", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(withBody(tt.body)))
			n := parse(t, rendered)
			if n.encoding != tt.encoding {
				t.Errorf("got encoding %s, want %s", n.encoding, tt.encoding)
			}
			if n.content != tt.want {
				t.Errorf("got %.200q, want %.200q", n.content, tt.want)
			}
			checkLines(t, rendered)
		})
	}
}

func checkLines(t *testing.T, rendered string) {
	t.Helper()
	_, body, _ := strings.Cut(rendered, "\r\n\r\n")
	long := 998
	if strings.Contains(rendered, "quoted-printable") || strings.Contains(rendered, "base64") {
		long = 76
	}
	for line := range strings.SplitSeq(body, "\r\n") {
		if len(line) > long || strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("bad line: %.100q", line)
		}
	}
}

func TestWriteTo_charset(t *testing.T) {
	tests := []struct {
		name    string
		charset string
		body    string
		want    string // the charset parameter
		content string // the octets
	}{
		{"default", "", "\u00fc", "utf-8", "\u00fc\r\n"},
		{"UTF-8 in capitals", "UTF-8", "\u00fc", "utf-8", "\u00fc\r\n"},
		{"Latin 1", "latin1", "\u00fc", "ISO-8859-1", "\xfc\r\n"},
		{"Latin 1 as Python has it", "latin-1", "\u00fc", "ISO-8859-1", "\xfc\r\n"},
		{"Latin 1 cannot hold it", "iso-8859-1", "\u65e5", "utf-8", "\u65e5\r\n"},
		{"Windows", "cp1252", "\u20ac", "windows-1252", "\x80\r\n"},
		{"JIS", "iso-2022-jp", "\u65e5", "ISO-2022-JP", "\x1b$BF|\x1b(B\r\n"},
		{"JIS and half-width katakana", "iso-2022-jp", "\uff76", "utf-8", "\uff76\r\n"},
		{"JIS and what only Windows has", "iso-2022-jp", "\u2460\u3231\u9ad9", "utf-8", "\u2460\u3231\u9ad9\r\n"},
		{"JIS and a wave that readers see as another", "iso-2022-jp", "\uff5e", "utf-8", "\uff5e\r\n"},
		{"Shift JIS and what only Windows has", "shift_jis", "\u2460", "utf-8", "\u2460\r\n"},
		{"Korean", "euc-kr", "\ud55c", "EUC-KR", "\xc7\xd1\r\n"},
		{"Korean and what only Windows has", "euc-kr", "\ubdc1", "utf-8", "\ubdc1\r\n"},
		{"GBK and the euro", "gbk", "\u20ac", "utf-8", "\u20ac\r\n"},
		{"Big5 and hiragana", "big5", "\u3042", "utf-8", "\u3042\r\n"},
		{"HZ is not for mail", "hz-gb-2312", "\u4e2d", "utf-8", "\u4e2d\r\n"},
		{"Shift JIS", "shift_jis", "\u65e5", "Shift_JIS", "\x93\xfa\r\n"},
		{"Shift JIS as Python has it", "sjis", "\u65e5", "Shift_JIS", "\x93\xfa\r\n"},
		{"EUC-JP", "euc_jp", "\u65e5", "EUC-JP", "\xc6\xfc\r\n"},
		{"Cyrillic", "koi8-r", "\u0416", "KOI8-R", "\xf6\r\n"},
		{"ASCII", "us-ascii", "a", "US-ASCII", "a\r\n"},
		{"ASCII cannot hold it", "ascii", "\u00fc", "utf-8", "\u00fc\r\n"},
		{"UTF-16 is not for mail", "utf-16", "a", "utf-8", "a\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(withBody(tt.body), withAlternative(tt.body, "text/html"), withAlternative("\u00fc", "text/plain; charset=iso-8859-1"),
				withAttachment(mailer.Attachment{Filename: "a.txt", Content: []byte(tt.body + "\n")}))
			m.Charset = tt.charset
			root := parse(t, render(t, m))
			for _, n := range []node{root.leaf(0, 0), root.leaf(0, 1), root.leaf(1)} {
				if n.params["charset"] != tt.want || n.content != tt.content {
					t.Errorf("%s: got %q in %s, want %q in %s", n.media, n.content, n.params["charset"], tt.content, tt.want)
				}
			}
			if n := root.leaf(0, 2); n.params["charset"] != "ISO-8859-1" || n.content != "\xfc\r\n" {
				t.Errorf("charset of its own: got %q in %s", n.content, n.params["charset"])
			}
		})
	}
}

func TestWriteTo_attachment(t *testing.T) {
	const eml = "Subject: a\r\n\r\nb\r\n"
	tests := []struct {
		name       string
		attachment mailer.Attachment
		media      string
		charset    string
		encoding   string
		want       string // decoded, if not the content
	}{
		{name: "by name", attachment: mailer.Attachment{Filename: "A.PNG", Content: []byte("\x00")}, media: "image/png", encoding: "quoted-printable"},
		{name: "compressed", attachment: mailer.Attachment{Filename: "x.tar.gz", Content: []byte("\x1f\x8b\x00\xff")}, media: "application/gzip", encoding: "base64"},
		{name: "by content", attachment: mailer.Attachment{Content: []byte("%PDF-1")}, media: "application/pdf", encoding: "7bit"},
		{name: "text by content", attachment: mailer.Attachment{Content: []byte("a\nb")}, media: "text/plain", charset: "utf-8", encoding: "7bit", want: "a\r\nb"},
		{name: "html by content", attachment: mailer.Attachment{Content: []byte("<!doctype HTML>")}, media: "text/html", charset: "utf-8", encoding: "7bit"},
		{name: "image by content", attachment: mailer.Attachment{Content: []byte("RIFF\x00\x00\x00\x00WEBP\xff\xff\xff\xff")}, media: "image/webp", encoding: "base64"},
		{name: "unknown", attachment: mailer.Attachment{Filename: "x.unknownext", Content: []byte("\x00\x01\xff\xfe\xfd")}, media: "application/octet-stream", encoding: "base64"},
		{name: "nothing at all", attachment: mailer.Attachment{}, media: "application/octet-stream", encoding: "7bit"},
		{name: "text", attachment: mailer.Attachment{Mimetype: "TEXT/PLAIN", Content: []byte("a\rb")}, media: "text/plain", charset: "utf-8", encoding: "7bit", want: "a\r\nb"},
		{name: "text in UTF-8", attachment: mailer.Attachment{Mimetype: "text/csv; header=present", Content: []byte("Gr\u00fc\u00dfe, and more, and more\n")}, media: "text/csv", charset: "utf-8", encoding: "quoted-printable", want: "Gr\u00fc\u00dfe, and more, and more\r\n"},
		{name: "text that is not", attachment: mailer.Attachment{Filename: "a.txt", Content: []byte("caf\xe9\n, more text")}, media: "application/octet-stream", encoding: "quoted-printable"},
		{name: "UTF-16", attachment: mailer.Attachment{Filename: "a.txt", Content: []byte("a\x00\r\x00\n\x00")}, media: "application/octet-stream", encoding: "base64"},
		{name: "declared UTF-16", attachment: mailer.Attachment{Mimetype: "text/plain; charset=utf-16le", Content: []byte("a\x00\r\x00\n\x00")}, media: "text/plain", charset: "utf-16le", encoding: "base64"},
		{name: "declared Latin 1", attachment: mailer.Attachment{Mimetype: "text/plain; charset=iso-8859-1", Content: []byte("caf\xe9, and more\n")}, media: "text/plain", charset: "iso-8859-1", encoding: "quoted-printable", want: "caf\xe9, and more\r\n"},
		{name: "declared ASCII", attachment: mailer.Attachment{Mimetype: "text/plain; charset=us-ascii", Content: []byte("caf\u00e9, and more\n")}, media: "text/plain", charset: "utf-8", encoding: "quoted-printable", want: "caf\u00e9, and more\r\n"},
		{name: "declared nonsense", attachment: mailer.Attachment{Mimetype: "text/plain; charset=klingon", Content: []byte("\xff\xfe\xfd\n")}, media: "text/plain", charset: "klingon", encoding: "base64"},
		{name: "octets stay as they are", attachment: mailer.Attachment{Mimetype: "application/json", Content: []byte("{\n\"a\": 1}\r\n\r")}, media: "application/json", encoding: "base64"},
		{name: "short octets", attachment: mailer.Attachment{Mimetype: "application/json", Content: []byte(`{"a": 1}`)}, media: "application/json", encoding: "7bit"},
		{name: "message", attachment: mailer.Attachment{Filename: "a.eml", Content: []byte(eml)}, media: "message/rfc822", encoding: "7bit"},
		{name: "message with LF", attachment: mailer.Attachment{Mimetype: "message/rfc822", Content: []byte("Subject: a\n\nb\n")}, media: "message/rfc822", encoding: "7bit", want: eml},
		{name: "no message", attachment: mailer.Attachment{Mimetype: "message/rfc822", Content: []byte("caf\xe9 au lait, and more")}, media: "application/octet-stream", encoding: "quoted-printable"},
		{name: "delivery status", attachment: mailer.Attachment{Mimetype: "message/delivery-status", Content: []byte("Reporting-MTA: dns; a\r\n\r\n")}, media: "message/delivery-status", encoding: "7bit"},
		{name: "delivery status beyond ASCII", attachment: mailer.Attachment{Mimetype: "message/delivery-status", Content: []byte("\u65e5\u672c")}, media: "application/octet-stream", encoding: "base64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(withAttachment(tt.attachment)))
			n := parse(t, rendered).leaf(1)
			if n.media != tt.media || n.encoding != tt.encoding || n.params["charset"] != tt.charset {
				t.Errorf("got %s in %q as %s, want %s in %q as %s", n.media, n.params["charset"], n.encoding, tt.media, tt.charset, tt.encoding)
			}
			want := tt.want
			if want == "" {
				want = string(tt.attachment.Content)
			}
			if n.content != want {
				t.Errorf("got %q, want %q", n.content, want)
			}
			if got := n.header.Get("Content-Disposition"); !strings.HasPrefix(got, "attachment") {
				t.Errorf("got disposition %q", got)
			}
		})
	}
}

// A file that begins with text and goes on with something else gets the encoding that is best for all of it.
func TestWriteTo_wholeContentDecides(t *testing.T) {
	text := strings.Repeat("name,price; ", 8<<10)
	binary := strings.Repeat("\x00\x9c\xfe\xff\x07\xc3", 64<<10)
	for _, tt := range []struct {
		content, encoding string
		most              float64 // of its size
	}{
		{text + binary, "base64", 1.38},
		{binary[:1<<10] + text + text, "quoted-printable", 1.25},
	} {
		rendered := render(t, message(withAttachment(mailer.Attachment{Filename: "a.bin", Content: []byte(tt.content), Mimetype: "application/x-a"})))
		if n := parse(t, rendered).leaf(1); n.encoding != tt.encoding || n.content != tt.content {
			t.Errorf("got %s, and %d bytes of %d", n.encoding, len(n.content), len(tt.content))
		}
		if grown := float64(len(rendered)) / float64(len(tt.content)); grown > tt.most {
			t.Errorf("grew %.2f times", grown)
		}
	}
}

// An attached text that names its charset keeps its bytes, whatever the charset of the message is. Others
// travel as text of the message.
func TestWriteTo_attachmentNamesCharset(t *testing.T) {
	const umlaut = "J\u00f6rg\n"
	tests := []struct {
		name     string
		filename string
		content  string
		charset  string // of the part
		want     string // decoded, if not the content
	}{
		{"XML", "a.xml", `<?xml version="1.0" encoding="UTF-8"?><a>` + umlaut + "</a>\n", "UTF-8", ""},
		{"XML in another charset", "a.xml", "<?xml version='1.0'\n encoding = 'windows-1252' standalone='yes'?><a>J\xf6rg\n</a>", "windows-1252", ""},
		{"XML in an unknown charset", "a.xml", `<?xml version="1.0" encoding="klingon"?><a>` + "\xf6\xff\n</a>", "klingon", ""},
		{"XML in what is no charset", "a.xml", `<?xml version="1.0" encoding="a;b c"?><a>` + "\xf6\n</a>", "a", ""},
		{"XML with a mark", "a.xml", "\xef\xbb\xbf<a>" + umlaut + "</a>", "utf-8", ""},
		{"XML that says nothing", "a.xml", "<a>" + umlaut + "</a>\n", "utf-8", "<a>J\u00f6rg\r\n</a>\r\n"},
		{"XML that says only its version", "a.xml", `<?xml version="1.0"?><a>` + umlaut, "utf-8", `<?xml version="1.0"?><a>` + "J\u00f6rg\r\n"},
		{"HTML", "a.html", "<!DOCTYPE html>\n<html><head><META name=x><Meta Charset=utf-8>" + umlaut, "utf-8", ""},
		{"HTML of old", "a.htm", `<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">` + "\x93\xfa\n", "shift_jis", ""},
		{"HTML that says nothing", "a.html", "<p>" + umlaut, "ISO-8859-1", "<p>J\xf6rg\r\n"},
		{"HTML that only speaks of it", "a.html", "<p>charset=utf-8" + umlaut, "ISO-8859-1", "<p>charset=utf-8J\xf6rg\r\n"},
		{"CSS", "a.css", `@charset "utf-8";` + umlaut, "utf-8", ""},
		{"CSV with a mark", "a.csv", "\xef\xbb\xbfname;\n" + umlaut, "utf-8", ""},
		{"CSV in UTF-16", "a.csv", "\xff\xfea\x00\n\x00", "utf-16", ""},
		{"CSV", "a.csv", umlaut, "ISO-8859-1", "J\xf6rg\r\n"},
		{"text", "a.txt", umlaut, "ISO-8859-1", "J\xf6rg\r\n"},
		{"calendar", "a.ics", "BEGIN:VCALENDAR\r\nSUMMARY:" + umlaut, "utf-8", "BEGIN:VCALENDAR\r\nSUMMARY:J\u00f6rg\r\n"},
		{"card", "a.vcf", "BEGIN:VCARD\r\nN;CHARSET=UTF-8:" + umlaut, "utf-8", "BEGIN:VCARD\r\nN;CHARSET=UTF-8:J\u00f6rg\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(withAttachment(mailer.Attachment{Filename: tt.filename, Content: []byte(tt.content)}))
			m.Charset = "iso-8859-1"
			n := parse(t, render(t, m)).leaf(1)
			want := tt.want
			if want == "" {
				want = tt.content
			}
			if n.params["charset"] != tt.charset || n.content != want || !strings.HasPrefix(n.media, "text/") {
				t.Errorf("got %q in %s, %s, want %q in %s", n.content, n.media, n.params["charset"], want, tt.charset)
			}
		})
	}
}

func TestWriteTo_otherAlternatives(t *testing.T) {
	m := message(withAlternative("{\"a\":\n1}", "application/json; charset=utf-8"), withAlternative("Subject: a\n\nb", "message/rfc822"))
	root := parse(t, render(t, m))
	if n := root.leaf(1); n.media != "application/json" || n.content != "{\"a\":\n1}" || n.header.Get("Content-Disposition") != "" {
		t.Errorf("got %+v", n)
	}
	if n := root.leaf(2); n.media != "message/rfc822" || n.encoding != "7bit" || n.content != "Subject: a\r\n\r\nb" {
		t.Errorf("got %+v", n)
	}
}

func TestWriteTo_inlineImage(t *testing.T) {
	m := message(withAlternative("<img src=cid:logo@x>", "text/html"),
		withAttachment(mailer.Attachment{Filename: "logo.png", Content: []byte("\x89PNG"), ContentID: "<logo@x>"}))
	n := parse(t, render(t, m)).leaf(1, 1)
	if got := n.header.Get("Content-Id"); got != "<logo@x>" {
		t.Errorf("got Content-ID %q", got)
	}
	if got := n.header.Get("Content-Disposition"); got != "inline; filename=logo.png" {
		t.Errorf("got Content-Disposition %q", got)
	}
}

// A body that holds the boundary of its own message, or looks like one, must not
// end a part.
func TestWriteTo_boundaryInBody(t *testing.T) {
	m := message(withBody("x\n"), withAlternative("<p>", "text/html"))
	for range 3 {
		boundary := parse(t, render(t, m)).params["boundary"]
		m.Body += "--" + boundary + "\n--" + boundary + "--\n"
		n := parse(t, render(t, m))
		if n.params["boundary"] == boundary {
			t.Fatal("the boundary stayed the same")
		}
		if got := n.leaf(0).content; got != strings.ReplaceAll(m.Body, "\n", "\r\n") {
			t.Errorf("got %q", got)
		}
	}
}

func TestWriteTo_deterministic(t *testing.T) {
	build := func() *mailer.EmailMessage {
		return message(withHeader("X-A", "1"), withHeader("X-B", "2"), withHeader("X-C", "3"),
			withAlternative("<p>", "text/html; b=1; a=2"), withAttachment(mailer.Attachment{Filename: "a"}))
	}
	first := render(t, build())
	for range 20 {
		if render(t, build()) != first {
			t.Fatal("the same message gives other bytes")
		}
	}
	other := build()
	other.MessageID = "<other@example.com>"
	if parse(t, render(t, other)).params["boundary"] == parse(t, first).params["boundary"] {
		t.Error("two messages have the same boundary")
	}
}

// An attachment is encoded as it is written: it takes no second time its memory.
func TestWriteTo_streams(t *testing.T) {
	binary := bytes.Repeat([]byte("\x00\x01\xfe\xff"), 8<<18)
	text := bytes.Repeat([]byte("Gr\u00fc\u00dfe und ein paar Worte mehr\n"), 8<<15)
	for _, a := range []mailer.Attachment{
		{Filename: "a.bin", Content: binary}, {Filename: "a.txt", Content: text},
		{Filename: "b.txt", Content: bytes.ReplaceAll(text, []byte("\n"), nil)},
		{Filename: "c.txt", Content: bytes.Repeat([]byte("\u65e5"), 8<<18)},
		{Filename: "a.eml", Content: append([]byte("Subject: a\n\n"), bytes.Repeat([]byte("text\n"), 2<<20)...)},
	} {
		m := message(withAttachment(a))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := m.WriteTo(io.Discard)
		runtime.ReadMemStats(&after)
		if err != nil || n < int64(len(a.Content)) {
			t.Fatalf("%s: wrote %d octets, %v", a.Filename, n, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d octets took %d", a.Filename, len(a.Content), used)
		}
	}
}

var errFull = errors.New("disk full")

// fullWriter takes n octets and then fails.
type fullWriter struct{ n int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		n := w.n
		w.n = 0
		return n, errFull
	}
	w.n -= len(p)
	return len(p), nil
}

// TestWriteTo_lentBuffer: a writer's own buffer is used where it has room, and what is in it stays.
func TestWriteTo_lentBuffer(t *testing.T) {
	for _, bm := range benchMessages() {
		var want strings.Builder
		if _, err := bm.message.WriteTo(&want); err != nil {
			t.Fatal(err)
		}
		for _, room := range []int{0, 100, 40 << 10, 60 << 10, 2 << 20} {
			var got bytes.Buffer
			got.WriteString("before: ")
			got.Grow(room)
			free := got.AvailableBuffer()
			free = free[:cap(free)]
			n, err := bm.message.WriteTo(&got)
			if err != nil || n != int64(want.Len()) || got.String() != "before: "+want.String() {
				t.Errorf("%s, room for %d: %d octets, %v, and not the same as elsewhere", bm.name, room, n, err)
			}
			if room == 2<<20 && !bytes.Equal(free[:want.Len()], []byte(want.String())) {
				t.Errorf("%s: not written where there was room", bm.name)
			}
		}
	}
}

func TestWriteTo_writeError(t *testing.T) {
	for _, room := range []int{0, 10, 50_000} {
		m := message(withAttachment(mailer.Attachment{Content: make([]byte, 1<<20)}))
		n, err := m.WriteTo(&fullWriter{n: room})
		if !errors.Is(err, errFull) || n != int64(room) {
			t.Errorf("room for %d: got %d, %v", room, n, err)
		}
	}
}

func TestWriteTo_incomplete(t *testing.T) {
	rendered := render(t, &mailer.EmailMessage{})
	if want := "Subject: \r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"; rendered != want {
		t.Errorf("got %q, want %q", rendered, want)
	}
}

func TestWriteTo_attachedMessage(t *testing.T) {
	const before = "Subject: Gr\u00fc\u00dfe an alle Leser in aller Welt\r\nFrom: J\u00f6rg <j@example.com>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed;\r\n boundary=\"b\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble \u00e9\r\n"
	tests := []struct {
		name    string
		content string
		want    string // "" if it becomes octets
	}{
		{"8bit text", "Subject: a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u00fc\u00dfe, and more\r\n",
			"Subject: a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe, and more\r\n"},
		{"8bit text without a type", "Subject: a\n\nGr\u00fc\u00dfe, and more\n",
			"Subject: a\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe, and more\r\n"},
		{"8bit declared only", "X: \u00e9\nContent-Transfer-Encoding: 8bit\n\nASCII\n",
			"X: =?utf-8?b?w6k=?=\r\nContent-Transfer-Encoding: 7bit\r\n\r\nASCII\r\n"},
		{"multipart", before + "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\u00fc\u00dfe, and more\r\n--b\r\nContent-Type: image/png;\r\n name=\"\u00fc.png\"\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\xfe\xfd\n\x00\r\n--b--\r\nepilogue \u00e9",
			"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_an_alle_Leser_in_aller_Welt?=\r\nFrom: =?utf-8?b?SsO2cmc=?= <j@example.com>\r\nMIME-Version: 1.0\r\n" +
				"Content-Type: multipart/mixed;\r\n boundary=\"b\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" +
				"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe, and more\r\n" +
				"--b\r\nContent-Type: image/png; name*=utf-8''%C3%BC.png\r\nContent-Transfer-Encoding: base64\r\n\r\n//79CgA=\r\n--b--\r\n"},
		{"message in a message", "Content-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\n\u65e5\u672c\r\n",
			"Content-Type: message/rfc822\r\n\r\nSubject: a\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E6=97=A5=E6=9C=AC\r\n"},
		{"header in Latin 1", "Subject: caf\xe9 au lait for all\n\nb\n", "Subject: =?utf-8?q?caf=C3=A9_au_lait_for_all?=\r\n\r\nb\r\n"},
		{"line that is too long", "Subject: a\n\n" + strings.Repeat("x", 999), "Subject: a\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
			strings.Repeat(strings.Repeat("x", 75)+"=\r\n", 13) + strings.Repeat("x", 24)},

		{"broken type", "Content-Type: text/plain; charset\n\n\u65e5\n", "Content-Type: text/plain; charset\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E6=97=A5\r\n"},
		{"unknown encoding", "X: \u00e9\nContent-Transfer-Encoding: x-uuencode\n\nbegin\n", "X: =?utf-8?b?w6k=?=\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin\r\n"},

		{"no header", "\u00fc, and more text than that", ""},
		{"NUL in the header", "Subject: \x00\n\nb", ""},
		{"8bit in what says it is encoded", "Content-Transfer-Encoding: base64\n\n\u00fc, and more text", ""},
		{"multipart without boundary", "Content-Type: multipart/mixed\n\n\u00fc, and more text", ""},
		{"multipart without parts", "Content-Type: multipart/mixed; boundary=b\n\n\u00fc, and more text", ""},
		{"nonsense type", "Content-Type: \u00fc;;=\n\nand more text", ""},
		{"too deep", strings.Repeat("Content-Type: message/rfc822\n\n", 30) + "Subject: a\n\n\u00fc", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := parse(t, render(t, message(withAttachment(mailer.Attachment{Content: []byte(tt.content), Mimetype: "message/rfc822"})))).leaf(1)
			if tt.want == "" {
				if n.media != "application/octet-stream" || n.content != tt.content {
					t.Errorf("got %s: %q", n.media, n.content)
				}
				return
			}
			if n.media != "message/rfc822" || n.encoding != "7bit" || n.content != tt.want {
				t.Errorf("got %s in %s:\n%q, want\n%q", n.media, n.encoding, n.content, tt.want)
			}
		})
	}
}

func TestEmailMessage_EstimateSize(t *testing.T) {
	t.Parallel()
	const n = 300_000
	binary := make([]byte, n)
	for i := range binary {
		binary[i] = byte(i * i)
	}
	text := strings.Repeat("A line of text, neither long nor short, as mail has it.\n", n/56)
	german := strings.Repeat("Grüße, und noch einmal Grüße, so lang wie üblich.\n", n/52)
	tests := []struct {
		name    string
		message *mailer.EmailMessage
	}{
		{"attachment", message(withAttachment(mailer.Attachment{Filename: "a.bin", Content: binary}))},
		{"attached text", message(withAttachment(mailer.Attachment{Filename: "a.txt", Content: []byte(german)}))},
		{"text", message(withBody(text))},
		{"text in quoted-printable", message(withBody(german))},
		{"alternative", message(func(m *mailer.EmailMessage) { m.AttachAlternative(german, "text/html") })},
		{"raw", &mailer.EmailMessage{To: []string{"a@example.com"}, FromEmail: "b@example.com", Raw: []byte("Subject: x\r\n\r\n" + strings.ReplaceAll(text, "\n", "\r\n"))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			size, err := tt.message.WriteTo(io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got := int64(tt.message.EstimateSize()); got < size || got > 2*size {
				t.Errorf("EstimateSize = %d, and it is %d", got, size)
			}
		})
	}
}
