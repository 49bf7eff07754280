package mailer_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

const rawHead = "From: a@example.com\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <raw@example.com>\r\n"

func rawMessage(raw string) *mailer.EmailMessage {
	return &mailer.EmailMessage{
		Raw: []byte(raw), FromEmail: "Añn <from@example.com>", To: []string{"to@example.com"},
		MessageID: "<made@example.com>", Date: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC),
	}
}

func renderRaw(t *testing.T, m *mailer.EmailMessage) string {
	t.Helper()
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatalf("%v\n%q", err, m.Raw)
	}
	return b.String()
}

func TestRaw_WriteTo(t *testing.T) {
	long := strings.Repeat("word ", 300) // 1,500 octets
	signed := "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=\"b\";\r\n\tmicalg=pgp-sha256; protocol=\"application/pgp-signature\"\r\n\r\n" +
		"preamble\r\n--b\r\nContent-Type: text/plain\r\n\r\n  Text with trailing white space  \r\n- -- \r\n\r\n--b\r\n" +
		"Content-Type: application/pgp-signature; name=signature.asc\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\n--b--\r\nepilogue\r\n"
	tests := []struct {
		name, raw, want string
	}{
		{"signed, every octet", rawHead + signed, rawHead + signed},
		{"LF becomes CRLF", strings.ReplaceAll(rawHead+signed, "\r\n", "\n"), rawHead + signed},
		{"a bare CR in the body becomes CRLF", rawHead + "\r\na\rb\nc", rawHead + "\r\na\r\nb\r\nc"},
		{"fields in any order and letter case, odd folding", "SUBJECT:x\r\n  y\r\n" + rawHead + "X-A:\r\n b\r\n\r\n", "SUBJECT:x\r\n  y\r\n" + rawHead + "X-A:\r\n b\r\n\r\n"},
		{"what is missing stands in front", "Subject: x\n\nbody\n", "From: =?utf-8?q?A=C3=B1n?= <from@example.com>\r\n" +
			"Date: Wed, 06 May 2026 07:08:09 +0000\r\nMessage-ID: <made@example.com>\r\nSubject: x\r\n\r\nbody\r\n"},
		{"no header", "\nbody", "From: =?utf-8?q?A=C3=B1n?= <from@example.com>\r\nDate: Wed, 06 May 2026 07:08:09 +0000\r\nMessage-ID: <made@example.com>\r\n\r\nbody"},
		{"no body", rawHead, rawHead + "\r\n"},
		{"Bcc and Return-Path are left out", "Return-Path: <x@example.com>\n" + rawHead + "BCC: b@example.com,\n c@example.com\nResent-Bcc: d@example.com\nTo: e@example.com\n\nBcc: body\n",
			rawHead + "To: e@example.com\r\n\r\nBcc: body\r\n"},
		{"a line of white space in the header is no end", rawHead + "Subject: a\n \t\n b\n\nbody", rawHead + "Subject: a\r\n b\r\n\r\nbody"},
		{"octets above 127 in the body stay", rawHead + "Content-Transfer-Encoding: 8bit\n\nGrüße\xff\n", rawHead + "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\xff\r\n"},
		{"UTF-8 in the header is encoded", rawHead + "Subject: Grüße\nTo: Jörg <j@bücher.example>\n\n", rawHead +
			"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\nTo: =?utf-8?b?SsO2cmc=?= <j@xn--bcher-kva.example>\r\n\r\n"},
		{"other octets in the header are taken for Latin-1", rawHead + "Subject: Gr\xfc\xdfe\n\n", rawHead + "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\n"},
		{"a local part in UTF-8 stays", rawHead + "To: jörg@example.com\n\n", rawHead + "To: jörg@example.com\r\n\r\n"},
		{"a long line in the header is folded", rawHead + "X-Long: " + long + "\n\n", rawHead + "X-Long: " + fold("X-Long: ", long) + "\r\n\r\n"},
		{"a long line in the body is encoded", rawHead + "\n" + strings.Repeat("x", 999) + "\nä\n", "MIME-Version: 1.0\r\n" + rawHead +
			"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat(strings.Repeat("x", 75)+"=\r\n", 13) + strings.Repeat("x", 24) + "\r\n=C3=A4\r\n"},
		{"lines of 998 octets are not", rawHead + "\n" + strings.Repeat("x", 998) + "\nä\n", rawHead + "\r\n" + strings.Repeat("x", 998) + "\r\nä\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := rawMessage(tt.raw)
			got := renderRaw(t, m)
			if got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
			if string(m.Raw) != tt.raw {
				t.Error("the caller's Raw was changed")
			}
			if again := renderRaw(t, rawMessage(got)); again != got {
				t.Errorf("rendered twice:\n%q, want\n%q", again, got)
			}
		})
	}
}

// A header field says the same before and after, whatever program wrote it.
func TestRaw_fields(t *testing.T) {
	const koi8 = "\xf0\xd2\xc9\xd7\xc5\xd4" // Привет
	const koi8Words = "=?utf-8?b?0J/RgNC40LLQtdGC?="
	typed := func(charset string) string { return "Content-Type: text/plain; charset=" + charset + "\n" }
	of := func(charset string) string { return strings.ReplaceAll(typed(charset), "\n", "\r\n") }
	long := strings.Repeat("y", 2000)
	tests := []struct {
		name, in, want string // behind the fields of rawHead
	}{
		{"blanks before the colon", "Subject : x\nX-A\t :y\n z\n", "Subject: x\r\nX-A:y\r\n z\r\n"},
		{"blanks before the colon of what is left out", "Bcc : x@example.com\nReturn-Path\t: <y@example.com>\n", ""},
		{"empty and folded fields", "Subject:\n x\nX-Empty:\nX-Blank: \nX-Late:\n \n y\n", "Subject:\r\n x\r\nX-Empty:\r\nX-Blank: \r\nX-Late:\r\n y\r\n"},
		{"a long line is broken as by Postfix", "X-Long: " + long + "\n", "X-Long: " + long[:990] + "\r\n " + long[:990] + "\r\n " + long[:20] + "\r\n"},
		{"a long line between words", "X-Long: a " + long[:1200] + " b\n", "X-Long: a\r\n " + long[:990] + "\r\n " + long[:210] + "\r\n b\r\n"},

		{"the charset of the text", "Subject: " + koi8 + "\n" + typed("koi8-r"), "Subject: " + koi8Words + "\r\n" + of("koi8-r")},
		{"the charset of the text, beside other parameters", "Subject: " + koi8 + "\nContent-Type: text/plain; name=" + koi8 + "; charset=\"KOI8-R\" (Cyrillic)\n",
			"Subject: " + koi8Words + "\r\nContent-Type: text/plain; name*=utf-8''%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82;\r\n charset=\"KOI8-R\" (Cyrillic)\r\n"},
		{"UTF-8, whatever the text is in", "Subject: Привет\n" + typed("koi8-r"), "Subject: " + koi8Words + "\r\n" + of("koi8-r")},
		{"GBK, where a character may end in a bracket", "Subject: \x8d\x5c \x81\x7c\n" + typed("gb2312"), "Subject: =?utf-8?b?5bOUIOS6hQ==?=\r\n" + of("gb2312")},
		{"Shift_JIS", "From: \x83\x5c\x83\x6a\x81\x5b <a@example.com>\n" + typed("Shift_JIS"), "From: =?utf-8?b?44K944OL44O8?= <a@example.com>\r\n" + of("Shift_JIS")},
		{"a charset that the bytes are not in", "Subject: Gr\xfc\xdfe\n" + typed("utf-8"), "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" + of("utf-8")},
		{"a charset that nobody knows", "Subject: Gr\xfc\xdfe\n" + typed("x-none"), "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" + of("x-none")},
		{"UTF-16 is no charset of a header", "Subject: Gr\xfc\xdfe\n" + typed("utf-16"), "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" + of("utf-16")},
		{"quotes of Windows", "Subject: \x93a\x94\n", "Subject: =?utf-8?b?4oCcYeKAnQ==?=\r\n"},

		{"beside encoded words", "Subject: Re: =?koi8-r?b?8NLJ18XU?= " + koi8 + "\n" + typed("koi8-r"),
			"Subject: =?utf-8?q?Re:_?= =?koi8-r?b?8NLJ18XU?= =?utf-8?b?INCf0YDQuNCy0LU=?=\r\n =?utf-8?b?0YI=?=\r\n" + of("koi8-r")},
		{"between encoded words", "Subject: =?utf-8?q?a?= ü =?utf-8?q?b?= =?utf-8?q?c?=\n", "Subject: =?utf-8?q?a?= =?utf-8?q?_=C3=BC_?= =?utf-8?q?b?= =?utf-8?q?c?=\r\n"},
		{"what is no encoded word", "Subject: =?x ü ?=\n", "Subject: =?utf-8?b?PT94IMO8ID89?=\r\n"},
		{"a name beside encoded words", "To: =?utf-8?q?J=C3=B6rg?= Müller <a@example.com>, B <b@example.com>\n",
			"To: =?utf-8?q?J=C3=B6rg?= =?utf-8?q?_M=C3=BCller?= <a@example.com>,\r\n B <b@example.com>\r\n"},
		{"names that look like addresses", "To: a@x.example <a@x.example>, 'b@x.example' <b@x.example>, ü <c@x.example>\n",
			"To: \"a@x.example\" <a@x.example>, \"'b@x.example'\" <b@x.example>,\r\n =?utf-8?b?w7w=?= <c@x.example>\r\n"},
		{"a list that nobody can read", "To: ü <\n", "To: =?utf-8?b?w7w=?= <\r\n"},
		{"a comment", "Date: Fri, 02 Jan 2026 03:04:05 +0000 (=?utf-8?q?a?= ü)\n", "Date: Fri, 02 Jan 2026 03:04:05 +0000 (=?utf-8?q?a?= =?utf-8?b?IMO8?=)\r\n"},

		{"descriptions and locations are text", "Content-Description: ü; x\nContent-Location: http://b.example/ü.png\n",
			"Content-Description: =?utf-8?b?w7w7IHg=?=\r\nContent-Location: =?utf-8?q?http://b.example/=C3=BC.png?=\r\n"},
		{"parameters without quotes", "Content-Disposition: attachment; filename=Grüße vom Jahr.pdf; size=3; Size=3\n",
			"Content-Disposition: attachment;\r\n filename*=utf-8''Gr%C3%BC%C3%9Fe%20vom%20Jahr.pdf; size=3; Size=3\r\n"},
		{"parameters that go on", "Content-Disposition: attachment; filename*0=\"Grü\"; filename*1=\"ße\"\n",
			"Content-Disposition: attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe\r\n"},
		{"a type that is none", "Content-Type: ü; x=y\n", "Content-Type: =?utf-8?b?w7w=?=; x=y\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head := rawHead
			for _, name := range []string{"From", "Date"} {
				if at := strings.Index(head, name+": "); strings.HasPrefix(tt.in, name+":") {
					head = head[:at] + head[at+strings.Index(head[at:], "\n")+1:]
				}
			}
			got := renderRaw(t, rawMessage(head+tt.in+"\nbody\n"))
			if want := head + tt.want + "\r\nbody\r\n"; got != want {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
			if again := renderRaw(t, rawMessage(got)); again != got {
				t.Errorf("rendered twice:\n%q, want\n%q", again, got)
			}
		})
	}
}

// The text of a message says in which charset its header is, also if it is one of its parts.
func TestRaw_charsetOfParts(t *testing.T) {
	raw := rawHead + "Subject: \xf0\xd2\xc9\xd7\xc5\xd4\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=b\n\n" +
		"--b\nContent-Type: text/plain; charset=koi8-r\n\n\xf0\n--b--\n--a\nContent-Type: image/png; name=\"\xf0\xd2.png\"\n\n" + strings.Repeat("x", 999) + "\n--a--\n"
	got := renderRaw(t, rawMessage(raw))
	for _, want := range []string{"Subject: =?utf-8?b?0J/RgNC40LLQtdGC?=\r\n", "Content-Type: image/png; name*=utf-8''%D0%9F%D1%80.png\r\n", "charset=koi8-r\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=F0\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("has no %q:\n%q", want, got)
		}
	}
	m, err := mailer.ParseRaw([]byte(raw))
	if err != nil || m.RawHeader("Subject") != "Привет" {
		t.Errorf("RawHeader says %q, %v", m.RawHeader("Subject"), err)
	}
	m.Raw = []byte("Subject: =?koi8-r?b?8NLJ18XU?=\n\n")
	if got := m.RawHeader("Subject"); got != "Привет" {
		t.Errorf("an encoded word in koi8-r says %q", got)
	}
}

// A body with a long line is encoded anew so that a reader gets the same bytes.
func TestRaw_bodies(t *testing.T) {
	long := strings.Repeat("x", 1200)
	base64Of := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	wrapped := func(s string) string {
		var b strings.Builder
		for ; len(s) > 76; s = s[76:] {
			b.WriteString(s[:76] + "\r\n")
		}
		return b.String() + s + "\r\n"
	}
	quoted := func(s string) string { // lines of 75 and a soft break
		var b strings.Builder
		for ; len(s) > 75; s = s[75:] {
			b.WriteString(s[:75] + "=\r\n")
		}
		return b.String() + s
	}
	multipart := func(fields, part string) string {
		return "Content-Type: multipart/mixed; boundary=b\n" + fields + "\n--b\n" + part + "\n--b--\n"
	}
	parts := func(fields, part string) string {
		return strings.ReplaceAll("Content-Type: multipart/mixed; boundary=b\n"+fields+"\n--b\n", "\n", "\r\n") + part + "\r\n--b--\r\n"
	}
	tests := []struct {
		name, in, want string // behind the fields of rawHead
	}{
		{"base64 in one line", "Content-Transfer-Encoding: base64\n\n" + base64Of(long) + "\n", "Content-Transfer-Encoding: base64\r\n\r\n" + wrapped(base64Of(long))},
		{"base64 with what is no base64", "Content-Transfer-Encoding: BASE64 (all of it)\n\n" + base64Of(long)[:999] + "\n \xff!" + base64Of(long)[999:],
			"Content-Transfer-Encoding: BASE64 (all of it)\r\n\r\n" + wrapped(base64Of(long))},
		{"quoted-printable in one line", "Content-Transfer-Encoding: quoted-printable\n\n" + long + "=3D\nshort =\nü=zz \nend",
			"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted(long) + "=\r\n=3D\r\nshort =\r\n=C3=BC=3Dzz\r\nend"},
		{"an encoding that is none", "Content-Transfer-Encoding: 8-bit\n\n" + long, "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted(long)},
		{"an encoding that is none, of a message in it", "Content-Type: message/rfc822\nContent-Transfer-Encoding: 7 bits\n\nContent-Transfer-Encoding: utf-8\n\n" + long,
			"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted(long)},
		{"a multipart that says it is encoded", multipart("Content-Transfer-Encoding: base64\n", "\n"+long), parts("Content-Transfer-Encoding: 7bit\n", "Content-Transfer-Encoding: quoted-printable\r\n\r\n"+quoted(long))},
		{"a part with base64", multipart("", "Content-Transfer-Encoding: base64\n\n"+base64Of(long)), parts("", "Content-Transfer-Encoding: base64\r\n\r\n"+wrapped(base64Of(long)))},
		{"a part with a line that is no field", multipart("", "Content-Type: text/html\nno field\n\n"+long), parts("", "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nno field\r\n\r\n"+quoted(long))},
		{"a boundary beside what breaks the grammar", "Content-Type: multipart/mixed; boundary=\"b\"; name=ü x\n\n--b\n\n" + long + "\n--b--\n",
			"Content-Type: multipart/mixed; boundary=\"b\"; name*=utf-8''%C3%BC%20x\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted(long) + "\r\n--b--\r\n"},
		{"beside a signed part", multipart("", "Content-Type: multipart/signed; boundary=s\n\n--s\n\nsigned  \n--s\n\nsignature\n--s--\n\n--b\n\n"+long),
			parts("", "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nsigned  \r\n--s\r\n\r\nsignature\r\n--s--\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"+quoted(long))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := renderRaw(t, rawMessage(rawHead+"MIME-Version: 1.0\n"+tt.in))
			if want := rawHead + "MIME-Version: 1.0\r\n" + tt.want; got != want {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
			if again := renderRaw(t, rawMessage(got)); again != got {
				t.Errorf("rendered twice:\n%q, want\n%q", again, got)
			}
		})
	}
}

// Who is refused learns the true reason.
func TestRaw_reasons(t *testing.T) {
	long := strings.Repeat("x", 999)
	const dkim = "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s; h=From : To:\n subject; bh=x; b=y\n"
	tests := []struct {
		name, in, want string
	}{
		{"an encoding that cannot be wrapped", "Content-Transfer-Encoding: x-uuencode\n\n" + long, "transfer encoding \"x-uuencode\" with a line of more than 998"},
		{"a multipart without parts", "Content-Type: multipart/mixed; boundary=b\n\n" + long, "a multipart without parts"},
		{"too deep", strings.Repeat("Content-Type: message/rfc822\n\n", 30) + "Subject: a\n\n" + long, "a nesting of at most 20 levels"},
		{"a control character in a part", "Content-Type: multipart/mixed; boundary=b\n\n--b\nX-A: \x01ü\n\n" + long + "\n--b--\n", "a control character in the field X-A of a part"},
		{"a signed part", "Content-Type: multipart/signed; boundary=b\n\n--b\n\n" + long + "\n--b--\n", "which would break the signature"},
		{"DKIM over a body", dkim + "\n" + long, "a DKIM-Signature, which would be broken"},
		{"DKIM over a field", dkim + "SUBJECT: ü\n\nbody", "a DKIM-Signature over the field SUBJECT"},
		{"DKIM over another field", dkim + "X-A: ü\n\nbody", ""},
		{"a long name", long + ": x\n\nbody", "a field whose name is too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := rawMessage(rawHead + tt.in).Validate()
			switch {
			case tt.want == "":
				if err != nil {
					t.Error(err)
				}
			case !mailer.IsBadInput(err) || !strings.Contains(err.Error(), tt.want):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestQualifyRaw(t *testing.T) {
	tests := []struct {
		name, in, want string // "": unchanged
	}{
		{"as cron writes them", "From: root (Cron Daemon)\nTo: root\nSubject: root\n\nTo: root\n", "From: root@h.example (Cron Daemon)\r\nTo: root@h.example\r\nSubject: root\n\nTo: root\n"},
		{"in all fields", "Sender: a\nReply-To: B <b>\nCc: \"c d\", \"e@f\", g@x.example\nResent-To: h\nErrors-To: i\nBcc: j\n\n",
			"Sender: a@h.example\r\nReply-To: B <b@h.example>\r\nCc: \"c d\"@h.example, \"e@f\"@h.example, g@x.example\r\nResent-To: h@h.example\r\nErrors-To: i\nBcc: j\n\n"},
		{"in groups", "To: us: a, B <b>;, nobody:;, c\n\n", "To: us: a@h.example, B <b@h.example>;, nobody:;, c@h.example\r\n\n"},
		{"beside names in 8 bit and encoded", "To: J\xf6rg <j>, =?utf-8?q?=C3=BC?= <u>\n\n", "To: =?utf-8?b?SsO2cmc=?= <j@h.example>, =?utf-8?q?=C3=BC?= <u@h.example>\r\n\n"},
		{"a dot at the end", "To: a@x.example., B <b@x.example.>\n\n", "To: a@x.example, B <b@x.example>\r\n\n"},
		{"nothing to do", "From:  a@x.example\nTo: b@x.example,\n  c@x.example (x.)\n\nbody", ""},
		{"a list that cannot be read", "To: a, <b\n\n", ""},
		{"an empty list", "To:\n\n", ""},
		{"DKIM", "DKIM-Signature: x\nTo: a\n\n", ""},
		{"OpenPGP", "Content-Type: multipart/signed; boundary=b\nTo: a\n\n", ""},
		{"S/MIME", "Content-Type: application/x-pkcs7-mime; smime-type=signed-data\nTo: a\n\n", ""},
		{"no message", "To a\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want == "" {
				want = tt.in
			}
			got := mailer.QualifyRaw([]byte(tt.in), "h.example")
			if string(got) != want {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
			if again := mailer.QualifyRaw(got, "h.example"); !bytes.Equal(again, got) {
				t.Errorf("a second time:\n%q", again)
			}
		})
	}
}

// fold folds words of five octets, blank included, at 78 columns.
func fold(name, words string) string {
	var b strings.Builder
	column := len(name) - 1
	for i, w := range strings.Fields(words) {
		if i > 0 && column+1+len(w) > 78 {
			b.WriteString("\r\n")
			column = 0
		}
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(w)
		column += 1 + len(w)
	}
	return b.String()
}

func TestRaw_refused(t *testing.T) {
	long := strings.Repeat("x", 999)
	with := func(change func(m *mailer.EmailMessage)) *mailer.EmailMessage {
		m := rawMessage(rawHead + "\r\nbody")
		change(m)
		return m
	}
	tests := []struct {
		name      string
		message   *mailer.EmailMessage
		field     string
		badHeader bool
	}{
		{"no field", rawMessage(rawHead + "not a field\n\nbody"), "raw", false},
		{"a name with a blank", rawMessage("Sub ject: x\n\n"), "raw", false},
		{"begins with white space", rawMessage(" Subject: x\n\n"), "raw", false},
		{"bare CR in the header", rawMessage(rawHead + "Subject: x\rBcc: y@example.com\r\n\r\n"), "raw", true},
		{"CR before CRLF in the header", rawMessage(rawHead + "Subject: x\r\r\nBcc: y@example.com\r\n\r\n"), "raw", true},
		{"NUL in the header", rawMessage(rawHead + "Subject: x\x00\r\n\r\n"), "raw", true},
		{"NUL in the body", rawMessage(rawHead + "\r\nx\x00\r\n"), "raw", false},
		{"a field name that is too long", rawMessage(rawHead + long + ": x\r\n\r\n"), "raw", false},
		{"a long line beside a signature", rawMessage(rawHead + "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/signed; boundary=b\n\n--b\n\n" +
			long + "\n--b--\n\n--a--\n"), "raw", false},
		{"subject", with(func(m *mailer.EmailMessage) { m.Subject = "x" }), "subject", false},
		{"body", with(func(m *mailer.EmailMessage) { m.Body = "x" }), "body", false},
		{"reply to", with(func(m *mailer.EmailMessage) { m.ReplyTo = []string{"a@example.com"} }), "reply_to", false},
		{"attachment", with(func(m *mailer.EmailMessage) { m.Attach("a", nil, "") }), "attachments", false},
		{"alternative", with(func(m *mailer.EmailMessage) { m.AttachAlternative("", "text/html") }), "alternatives", false},
		{"subtype", with(func(m *mailer.EmailMessage) { m.ContentSubtype = "html" }), "content_subtype", false},
		{"headers", with(func(m *mailer.EmailMessage) { m.Headers = map[string]string{"X-A": "b"} }), "headers[X-A]", false},
		{"recipient with a newline", with(func(m *mailer.EmailMessage) { m.To = []string{"a@example.com\nRCPT TO:<b@example.com>"} }), "to[0]", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var bad *mailer.BadHeaderError
			var invalid *mailer.InvalidMessageError
			var b bytes.Buffer
			err := tt.message.Validate()
			n, again := tt.message.WriteTo(&b)
			if again == nil || err == nil || again.Error() != err.Error() || n != 0 || b.Len() != 0 {
				t.Errorf("Validate says %v, WriteTo %v after %d octets", err, again, b.Len())
			}
			field := ""
			switch {
			case errors.As(err, &bad) && tt.badHeader:
				field = bad.Field
			case errors.As(err, &invalid) && !tt.badHeader:
				field = invalid.Field
			}
			if field != tt.field {
				t.Errorf("got %T %v, want the field %s", err, err, tt.field)
			}
		})
	}
}

func TestRaw_envelope(t *testing.T) {
	m := rawMessage(rawHead + "To: other@example.com\nBcc: hidden@example.com\n\n")
	m.Cc, m.Bcc = []string{"cc@example.com"}, []string{"bcc@example.com"}
	e, err := m.Envelope()
	if err != nil || e.From != "from@example.com" || !slices.Equal(e.To, []string{"to@example.com", "cc@example.com", "bcc@example.com"}) || e.UTF8 {
		t.Errorf("%+v, %v", e, err)
	}
	m.Headers = map[string]string{"Return-Path": "<>"}
	if e, err := m.Envelope(); err != nil || e.From != "" {
		t.Errorf("null sender: %+v, %v", e, err)
	}
	if e, err := rawMessage(rawHead + "Subject: Grüße\nCc: jörg@example.com\n\n").Envelope(); err != nil || !e.UTF8 {
		t.Errorf("a local part in UTF-8: %+v, %v", e, err)
	}
	if e, err := rawMessage(rawHead + "Subject: Grüße\nCc: Jörg <j@example.com>\n\n").Envelope(); err != nil || e.UTF8 {
		t.Errorf("no local part in UTF-8: %+v, %v", e, err)
	}
	if got := renderRaw(t, m.WithRecipients([]string{"cc@example.com"})); got != renderRaw(t, m) {
		t.Error("other recipients get other octets")
	}
}

func TestRaw_WithDefaults(t *testing.T) {
	whole := (&mailer.EmailMessage{Raw: []byte(rawHead + "\n")}).WithDefaults(mailer.Defaults{Hostname: "h"})
	if whole.MessageID != "<raw@example.com>" || !whole.Date.IsZero() {
		t.Errorf("a complete header: %q, %v", whole.MessageID, whole.Date)
	}
	bare := (&mailer.EmailMessage{Raw: []byte("Subject: x\n\n")}).WithDefaults(mailer.Defaults{Hostname: "h"})
	if !strings.HasSuffix(bare.MessageID, "@h>") || bare.Date.IsZero() || bare.FromEmail != "webmaster@localhost" {
		t.Errorf("an empty one: %+v", bare)
	}
	odd := (&mailer.EmailMessage{Raw: []byte("Message-ID: a b\n\n")}).WithDefaults(mailer.Defaults{Hostname: "h"})
	if got := renderRaw(t, odd); !strings.HasSuffix(odd.MessageID, "@h>") || strings.Contains(got, odd.MessageID) || !strings.Contains(got, "Message-ID: a b\r\n") {
		t.Errorf("an odd Message-ID: %q\n%s", odd.MessageID, got)
	}
}

// A message of our own, given as a finished one, has the same octets.
func TestRaw_golden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := renderRaw(t, rawMessage(string(data))); got != string(data) {
			t.Errorf("%s: got\n%s", file, got)
		}
	}
}

func TestRaw_JSON(t *testing.T) {
	m := rawMessage("Subject: \xff\n\n\x80body\r")
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back mailer.EmailMessage
	if err := json.Unmarshal(data, &back); err != nil || !bytes.Equal(back.Raw, m.Raw) || renderRaw(t, &back) != renderRaw(t, m) {
		t.Errorf("%v\n%s", err, data)
	}
	if err := json.Unmarshal([]byte(`{"raw":"!"}`), &back); err == nil || !strings.Contains(err.Error(), "raw: is not base64") {
		t.Errorf("bad base64: %v", err)
	}
}

func TestParseRaw(t *testing.T) {
	tests := []struct {
		name, header, from string
		to                 []string
	}{
		{"nobody", "Subject: x\n", "", nil},
		{"all fields, each address once", "From: F <f@example.com>\nTo: a@example.com,\n B <b@example.com>\ncc: c@EXAMPLE.com\nBcc: d@example.com, c@example.com\nTo: e@example.com\n",
			"f@example.com", []string{"a@example.com", "b@example.com", "e@example.com", "c@EXAMPLE.com", "d@example.com"}},
		{"sender", "From: a@example.com, b@example.com\nSender: s@example.com\nTo: root\n", "s@example.com", []string{"root"}},
		{"groups", "From: a@example.com\nTo: undisclosed-recipients:;\nCc: \"A: b\" friends (of: mine): x@example.com, Y:Z <\"y:;\"@example.com>;, z@[IPv6:2001:db8::1]\n",
			"a@example.com", []string{"x@example.com", "\"y:;\"@example.com", "z@[IPv6:2001:db8::1]"}},
		{"resent, the newest", "Received: x\nResent-From: r@example.com\nResent-To: t@example.com\nResent-Bcc: u@example.com\nResent-From: old@example.com\nResent-Cc: v@example.com\nFrom: f@example.com\nTo: w@example.com\n",
			"r@example.com", []string{"t@example.com", "u@example.com"}},
		{"names in UTF-8 and Latin-1", "From: Jörg <j@example.com>\nTo: J\xf6rg <k@example.com>\n", "j@example.com", []string{"k@example.com"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := mailer.ParseRaw([]byte(tt.header + "\nTo: body@example.com\n"))
			if err != nil || m.FromEmail != tt.from || !slices.Equal(m.To, tt.to) {
				t.Errorf("from %q to %q, %v", m.FromEmail, m.To, err)
			}
		})
	}
	for list, want := range map[string]string{ // as Postfix reads them
		"a@x.example <a@x.example>, 'b@x.example' <b@x.example>": "a@x.example b@x.example",
		"a@x.example., B <b@x.example.>":                         "a@x.example b@x.example",
		"a@x.example b@x.example; c@x.example":                   "a@x.example b@x.example c@x.example",
		"<@r.example,@s.example:a@x.example>":                    "a@x.example",
		"us: a@x.example; b@x.example, me @ home <c@x.example>":  "a@x.example b@x.example c@x.example",
		", a@x.example,, (x) , b (y)":                            "a@x.example b",
	} {
		if m, err := mailer.ParseRaw([]byte("To: " + list + "\n\n")); err != nil || strings.Join(m.To, " ") != want {
			t.Errorf("%s: %v, %v", list, m, err)
		}
	}
	for list, want := range map[string]string{
		"a@x.example, b c, d@x.example": `the field To has "b c", which is not an address`,
		"A <a@\x81.example>":            `the field To has "A <a@`,
		"a@x.example, b@x..example":     `the field To has "b@x..example", which has a bad domain`,
	} {
		if _, err := mailer.ParseRaw([]byte("To: " + list + "\n\n")); !mailer.IsBadInput(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", list, err, want)
		}
	}
	for _, bad := range []string{"", "x", "To: a b\n", "To: <a@example.com\n", "To: a@example.com\x00\n"} {
		if m, err := mailer.ParseRaw([]byte(bad)); !mailer.IsBadInput(err) {
			t.Errorf("%q: %+v, %v", bad, m, err)
		}
	}
}

func TestRawHeader(t *testing.T) {
	m := &mailer.EmailMessage{Raw: []byte("subject: =?utf-8?q?Gr=C3=BC?=\n =?utf-8?q?=C3=9Fe?=\nSubject: second\n\nX-A: b\n")}
	if got := m.RawHeader("Subject"); got != "Grüße" {
		t.Errorf("got %q", got)
	}
	if got := m.RawHeader("X-A"); got != "" {
		t.Errorf("from the body: %q", got)
	}
}

// A header that somebody has made to be slow to read is not: what is not closed is
// looked for once, which takes milliseconds, and not from each place, which takes minutes.
func TestParseRaw_quick(t *testing.T) {
	const n = 1 << 20
	for _, open := range []string{"(", "<", "[", `"x`} {
		start := time.Now()
		_, _ = mailer.ParseRaw([]byte("To: " + strings.Repeat(open, n+1) + "\n\n"))
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s takes %v", open, took)
		}
	}
}

// Whatever is in a raw message, what is rendered can be on the wire, and rendering that
// once more changes nothing.
func FuzzRaw(f *testing.F) {
	for _, raw := range []string{
		rawHead + "Bcc: a@example.com\n\nbody\n", "Subject: x\r \n\n", "To: g: a@b, \"c\";\n\n\x00", "From:\x9d\n\n", "A:b\n\n" + strings.Repeat("\xe9", 1500),
		rawHead + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + strings.Repeat("x", 1200) + "\n--b--\n",
		rawHead + "Cc: \u00c4nn <a@example.com>, " + addressOf(90) + ", " + strings.Repeat("n", 300) + " <b@example.com>\nContent-Type: text/plain; name=\"\u00e9\"; x*=utf-8''%0A%0Aa\n \t\n\nbody", "A: " + strings.Repeat("b ", 999) + "\n \n\n.\r\n",
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := rawMessage(string(raw))
		if parsed, err := mailer.ParseRaw(raw); err == nil {
			if _, err := parsed.WithDefaults(mailer.Defaults{Hostname: "h"}).Envelope(); err != nil {
				t.Errorf("ParseRaw's envelope: %v", err)
			}
		}
		if len(raw) == 0 || m.Validate() != nil {
			return
		}
		got := renderRaw(t, m)
		checkRawFields(t, raw, got)
		head, _, found := strings.Cut(got, "\r\n\r\n")
		if !found || strings.Contains(strings.ToLower("\r\n"+head), "\r\nbcc:") || !strings.Contains(strings.ToLower("\r\n"+head), "\r\nmessage-id:") {
			t.Errorf("bad header: %q", head)
		}
		for line := range strings.SplitSeq(got, "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || len(line) > 998 {
				t.Errorf("bad line %q", line)
			}
		}
		if again := renderRaw(t, rawMessage(got)); again != got {
			t.Errorf("rendered twice:\n%q, want\n%q", again, got)
		}
	})
}
