package mailer_test

import (
	"bytes"
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
		{"a long word in the header", rawMessage(rawHead + "X-A: " + long + "\r\n\r\n"), "raw", false},
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
