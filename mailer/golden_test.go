package mailer_test

import (
	"flag"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares messages with the files in testdata/golden, byte for byte,
// and reads them back with Go's own packages.
func TestGolden(t *testing.T) {
	tests := []struct {
		name    string
		message *mailer.EmailMessage
		tree    string
		leaves  []string // decoded, from left to right
	}{
		{
			name: "text",
			message: message(func(m *mailer.EmailMessage) {
				m.Cc, m.Bcc = []string{"Cc <cc@example.com>"}, []string{"bcc@example.com"}
			}),
			tree: "text/plain", leaves: []string{"Content\r\n"},
		},
		{
			name: "names",
			message: message(func(m *mailer.EmailMessage) {
				m.Subject = "Gr\u00fc\u00dfe aus K\u00f6ln, der Stadt am Rhein mit dem Dom, dem Karneval und \u65e5\u672c\u8a9e"
				m.FromEmail = "\"M\u00fcller, J\u00f6rg\" <joerg@m\u00fcller.example>"
				m.To = []string{"J. R. Smith <jr@example.com>", "\"Smith, John\" <john@example.com>", "root", "\u5c71\u7530\u592a\u90ce <taro@example.jp>", "\"very unusual\"@example.com"}
				m.ReplyTo = []string{"support@example.com"}
				m.Headers["List-Unsubscribe"] = "<https://example.com/unsubscribe/" + strings.Repeat("0123456789", 8) + ">"
				m.Headers["x-campaign"] = "Fr\u00fchling"
				m.Headers["Return-Path"] = "<bounces@example.com>"
			}),
			tree: "text/plain", leaves: []string{"Content\r\n"},
		},
		{
			name:    "html",
			message: message(withBody("Gr\u00fc\u00dfe, mit ein paar Worten mehr dahinter\n"), withAlternative("<p>Gr\u00fc\u00dfe, mit ein paar Worten mehr dahinter</p>\n", "text/html")),
			tree:    "alternative[text/plain text/html]",
			leaves:  []string{"Gr\u00fc\u00dfe, mit ein paar Worten mehr dahinter\r\n", "<p>Gr\u00fc\u00dfe, mit ein paar Worten mehr dahinter</p>\r\n"},
		},
		{
			name: "everything",
			message: message(withAlternative("<img src=\"cid:logo@example.com\">\n", "text/html"),
				withAlternative("BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n", "text/calendar; method=REQUEST"),
				withAttachment(mailer.Attachment{Filename: "logo.png", Content: []byte("\x89PNG\r\n\x1a\n\x00"), ContentID: "logo@example.com"}),
				withAttachment(mailer.Attachment{Filename: "r\u00e9sum\u00e9.pdf", Content: []byte("%PDF-1.7\n\xff\xfe\xfd\xfc\x00")}),
				withAttachment(mailer.Attachment{Filename: "table.csv", Content: []byte("a,b\n1,2\n")})),
			tree: "mixed[alternative[text/plain related[text/html image/png] text/calendar] application/pdf text/csv]",
			leaves: []string{"Content\r\n", "<img src=\"cid:logo@example.com\">\r\n", "\x89PNG\r\n\x1a\n\x00",
				"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n", "%PDF-1.7\n\xff\xfe\xfd\xfc\x00", "a,b\r\n1,2\r\n"},
		},
		{
			name: "attached message",
			message: message(withBody(""), withAttachment(mailer.Attachment{Filename: "m.eml", Content: []byte(
				"Subject: Gr\u00fc\u00dfe\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u00fc\u00dfe\n")})),
			tree: "mixed[message/rfc822]",
			leaves: []string{"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\nContent-Type: text/plain; charset=utf-8\r\n" +
				"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n"},
		},
		{
			name: "newsletter",
			message: message(func(m *mailer.EmailMessage) {
				m.Cc, m.VERP = nil, "bounces@example.org"
				m.ListUnsubscribe = mailer.ListUnsubscribe{URL: "https://example.com/unsubscribe/" + strings.Repeat("0123456789", 8), Mailto: "List <leave+7@example.com>", OneClick: true}
			}),
			tree: "text/plain", leaves: []string{"Content\r\n"},
		},
		{
			name: "japanese",
			message: message(func(m *mailer.EmailMessage) {
				m.Subject, m.Body, m.Charset = "\u65e5\u672c\u8a9e\u306e\u4ef6\u540d", "\u3053\u3093\u306b\u3061\u306f\n", "iso-2022-jp"
			}),
			tree: "text/plain", leaves: []string{"\x1b$B$3$s$K$A$O\x1b(B\r\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := render(t, tt.message)
			path := filepath.Join("testdata", "golden", strings.ReplaceAll(tt.name, " ", "_")+".eml")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s, want\n%s", got, want)
			}
			root := parse(t, got)
			if root.tree() != tt.tree {
				t.Errorf("got %s, want %s", root.tree(), tt.tree)
			}
			if leaves := root.leaves(); !slices.Equal(leaves, tt.leaves) {
				t.Errorf("got %q, want %q", leaves, tt.leaves)
			}
			checkParsedHeader(t, tt.message, got)
		})
	}
}

// leaves are the contents of the leaves, from left to right.
func (n node) leaves() []string {
	if n.parts == nil {
		return []string{n.content}
	}
	var all []string
	for _, p := range n.parts {
		all = append(all, p.leaves()...)
	}
	return all
}

func checkParsedHeader(t *testing.T, m *mailer.EmailMessage, rendered string) {
	t.Helper()
	parsed, err := mail.ReadMessage(strings.NewReader(rendered))
	if err != nil {
		t.Fatal(err)
	}
	if got := decodeWords(t, parsed.Header.Get("Subject")); got != m.Subject {
		t.Errorf("got subject %q, want %q", got, m.Subject)
	}
	if got := parsed.Header.Get("Message-Id"); got != m.MessageID {
		t.Errorf("got Message-ID %q, want %q", got, m.MessageID)
	}
	if date, err := parsed.Header.Date(); err != nil || !date.Equal(m.Date) {
		t.Errorf("got date %v, %v, want %v", date, err, m.Date)
	}
	if from, err := parsed.Header.AddressList("From"); err != nil || len(from) != 1 {
		t.Errorf("got From %v, %v", from, err)
	}
	if parsed.Header.Get("Bcc") != "" || parsed.Header.Get("Return-Path") != "" {
		t.Error("what is for the envelope alone is in the header")
	}
}
