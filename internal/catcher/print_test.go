package catcher_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// crlf lets tests write messages with Go's line ends.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func TestPrint(t *testing.T) {
	tests := []struct{ name, raw, want string }{
		{
			name: "plain",
			raw:  "Subject: Hello\nTo: a@example.com\n\nHello, World!\n",
			want: "Subject: Hello\nTo: a@example.com\n\nHello, World!\n",
		},
		{
			name: "encoded words, folded",
			raw:  "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n =?utf-8?b?IGF1cyBLw7Zsbg==?=\nFrom: =?iso-8859-1?q?J=FCrgen?= <j@example.com>\nX: =?x-unknown?q?=FC?=\n\n",
			want: "Subject: Grüße aus Köln\nFrom: Jürgen <j@example.com>\nX: =?x-unknown?q?=FC?=\n\n\n",
		},
		{
			name: "quoted-printable and charset",
			raw:  "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe, ein langer=\n Satz\n",
			want: "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGrüße, ein langer Satz\n",
		},
		{
			name: "base64 ISO-2022-JP",
			raw:  "Content-Type: text/plain; charset=\"ISO-2022-JP\"\nContent-Transfer-Encoding: BASE64\n\nGyRCRnxLXBsoQg==\n",
			want: "Content-Type: text/plain; charset=\"ISO-2022-JP\"\nContent-Transfer-Encoding: BASE64\n\n日本\n",
		},
		{
			name: "alternatives and attachments",
			raw: "Content-Type: multipart/mixed; boundary=out\n\npreamble\n--out\nContent-Type: multipart/alternative; boundary=\"in\"\n\n" +
				"--in\nContent-Type: text/plain\n\ntext\n--in\nContent-Type: text/html\n\n<p>html</p>\n--in--\n" +
				"--out\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename*=utf-8''%e2%82%ac.pdf\n\nAAEC\nAw==\n" +
				"--out\nContent-Type: text/plain; name=notes.txt\n\nnotes\n" +
				"--out\nContent-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: inner\n\nbody\n--out--\nepilogue\n",
			want: "Content-Type: multipart/mixed; boundary=out\n\ntext\n[text/html]\n<p>html</p>\n" +
				"[€.pdf: application/pdf, 4 bytes]\n[notes.txt: text/plain, 5 bytes]\n[unnamed: message/rfc822, 22 bytes]\n",
		},
		{
			name: "no header",
			raw:  "just text\n",
			want: "\njust text\n",
		},
		{
			name: "no last boundary",
			raw:  "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo",
			want: "Content-Type: multipart/mixed; boundary=b\n\none\n[text/plain]\ntwo\n",
		},
		{
			name: "problems",
			raw: "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=klingon\n\nx\n" +
				"--b\nContent-Transfer-Encoding: base64\n\n####QUJD!\n--b\nContent-Transfer-Encoding: uuencode\n\ny\n--b\n\n\xff\n--b\nContent-Type: nonsense\n\nz\n--b--\n",
			want: "Content-Type: multipart/mixed; boundary=b\n\n[text/plain, unknown charset klingon]\nx\n[text/plain]\nABC\n" +
				"[text/plain, unknown transfer encoding uuencode]\ny\n[text/plain, not valid UTF-8]\n\\xff\n[text/plain]\nz\n",
		},
		{
			name: "terminal commands",
			raw: "Subject: a\x1b[2Jb =?utf-8?q?c=1B]0;d=07=0Ae?=\nX\x1b: y\nContent-Type: multipart/mixed; boundary=b\n\n" +
				"--b\n\ntab\there\x00 bell\x07 back\x08 c1\xc2\x9b csi\x9b bidi\xe2\x80\xae del\x7f bare\rcr\n" +
				"--b\nContent-Disposition: attachment; filename=\"=?utf-8?q?f=1B=0Ag?=\"\n\n--b--\n",
			want: "Subject: a\\x1b[2Jb c\\x1b]0;d\\x07\\x0ae\nX\\x1b: y\nContent-Type: multipart/mixed; boundary=b\n\n" +
				"[text/plain, not valid UTF-8]\ntab\there\\x00 bell\\x07 back\\x08 c1\\u009b csi\\x9b bidi\\u202e del\\x7f bare\\x0dcr\n" +
				"[f\\x1b\\x0ag: text/plain, 0 bytes]\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			m := catcher.Message{Number: 7, From: "a\x1b@example.org", To: []string{"b@example.com", "c@example.com"}, Raw: crlf(tt.raw)}
			if err := catcher.Print(&out, m); err != nil {
				t.Fatal(err)
			}
			want := "---------- MESSAGE 7 FOLLOWS ----------\nMAIL FROM:<a\\x1b@example.org>\nRCPT TO:<b@example.com>\nRCPT TO:<c@example.com>\n\n" +
				tt.want + "------------ END MESSAGE ------------\n"
			if out.String() != want {
				t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestPrint_writeError(t *testing.T) {
	if err := catcher.Print(brokenWriter{}, catcher.Message{}); !errors.Is(err, errBroken) {
		t.Errorf("error = %v", err)
	}
}

// Whatever comes in, nothing comes out that a terminal could obey.
func FuzzPrint(f *testing.F) {
	f.Add([]byte("Subject: x\r\n y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nABs=\r\n"))
	f.Add([]byte("Content-Type: text/plain; charset=iso-2022-jp; name*=utf-8''%1b\r\n\r\n\x1b$B\x1b\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out strings.Builder
		if err := catcher.Print(&out, catcher.Message{Raw: raw}); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q has %U", out.String(), r)
			}
		}
	})
}
