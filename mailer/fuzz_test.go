package mailer_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// fuzzArgs are the texts that the fuzzers vary, in the order of their arguments.
type fuzzArgs struct {
	subject, body, from, to, replyTo, name, value, subtype, charset, html, mimetype,
	filename, content, attachmentType, contentID, messageID string
	date int64
}

func (a fuzzArgs) message() *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: a.subject, Body: a.body, FromEmail: a.from,
		To: []string{a.to, a.replyTo}, Cc: []string{a.replyTo, a.to}, ReplyTo: []string{a.replyTo, a.replyTo}, Bcc: []string{a.replyTo},
		Headers:        map[string]string{a.name: a.value},
		ContentSubtype: a.subtype, Charset: a.charset, MessageID: a.messageID,
	}
	if a.date != 0 {
		m.Date = time.Unix(a.date, 0).UTC()
	}
	if a.html != "" || a.mimetype != "" {
		m.AttachAlternative(a.html, a.mimetype)
	}
	if a.content != "" || a.filename != "" {
		m.Attachments = []mailer.Attachment{{
			Filename: a.filename, Content: []byte(a.content), Mimetype: a.attachmentType, ContentID: a.contentID,
		}}
	}
	return m
}

// fuzzMessages runs check with messages made of whatever the fuzzer finds.
func fuzzMessages(f *testing.F, check func(t *testing.T, m *mailer.EmailMessage)) {
	f.Helper()
	for _, a := range []fuzzArgs{
		{subject: "Hi", body: "text\n", from: "a@example.com", to: "B <b@example.com>", name: "X-Id", value: "1", messageID: "<x@y>", date: 1},
		{subject: "a\r\nBcc: c@example.com", body: "a\rb\x00", from: "a@example.com\n", to: "b@example.com", name: "X: y\r\nZ", value: "\r\n\r\nbody"},
		{subject: "Grüße\u2028\u0085", body: strings.Repeat("ü", 600), from: "\"Ü, \\\"x\\\"\" <a@bücher.example>", to: "jörg@example.com", replyTo: "root", name: "to", value: "Ä <list@example.com>, b@example.com", charset: "iso-2022-jp"},
		{body: "日本語", from: "a@b.c", subtype: "html", charset: "shift_jis", name: "Return-Path", value: "<>", html: "<img src=cid:l>", mimetype: "text/html", filename: "l.png", content: "\x89PNG", contentID: "l"},
		{from: "a@b.c", name: "bcc", value: "x@y.z", html: "BEGIN", mimetype: "text/calendar; method=REQUEST", filename: "é\"\\.eml", content: "Subject: é\n\n\xe9\x00\n", attachmentType: "message/rfc822"},
		{from: "a@b.c", name: "Message-ID", value: "foo", filename: "a.txt", content: "a\rb\nc\r\n", attachmentType: "text/plain; charset=utf-16"},
		{from: "a@b.c (x)", name: "Sender", value: "=?utf-8?q?x?= <a@b>", content: "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n", attachmentType: "message/rfc822"},
		{from: "Ann <" + addressOf(120) + ">", to: addressOf(80), replyTo: strings.Repeat("n", 90) + " <b@example.com>", name: "From", value: "Ann <a@example.com>, " + addressOf(100),
			subject: strings.Repeat("s", 600), filename: strings.Repeat("f", 200), content: "x", attachmentType: "application/x-a; p=" + strings.Repeat("p", 100), contentID: strings.Repeat("i", 100)},
	} {
		f.Add(a.subject, a.body, a.from, a.to, a.replyTo, a.name, a.value, a.subtype, a.charset, a.html, a.mimetype,
			a.filename, a.content, a.attachmentType, a.contentID, a.messageID, a.date)
	}
	f.Fuzz(func(t *testing.T, subject, body, from, to, replyTo, name, value, subtype, charset, html, mimetype,
		filename, content, attachmentType, contentID, messageID string, date int64) {
		check(t, fuzzArgs{subject, body, from, to, replyTo, name, value, subtype, charset, html, mimetype,
			filename, content, attachmentType, contentID, messageID, date}.message())
	})
}

// FuzzRender: whatever the fields hold, a reader finds the header fields that the author set,
// each with what was given, and no others, and there is no byte or line that an SMTP server
// could misread.
func FuzzRender(f *testing.F) {
	fuzzMessages(f, func(t *testing.T, m *mailer.EmailMessage) {
		var b bytes.Buffer
		n, err := m.WriteTo(&b)
		if err != nil {
			if !mailer.IsBadInput(err) {
				t.Fatalf("not bad input: %v", err)
			}
			if b.Len() > 0 {
				t.Fatalf("wrote %d octets of a bad message", b.Len())
			}
			if isInvalid := m.Validate(); isInvalid == nil {
				t.Fatalf("WriteTo says %v, Validate nothing", err)
			}
			return
		}
		if n != int64(b.Len()) {
			t.Fatalf("n = %d, wrote %d", n, b.Len())
		}
		checkSafe(t, m, b.String())
	})
}

func checkSafe(t *testing.T, m *mailer.EmailMessage, rendered string) {
	t.Helper()
	if strings.ContainsRune(rendered, 0) {
		t.Fatal("has a NUL")
	}
	if !strings.HasSuffix(rendered, "\r\n") {
		t.Fatal("does not end with a line end")
	}
	bare := strings.ReplaceAll(rendered, "\r\n", "")
	if strings.ContainsAny(bare, "\r\n") {
		t.Fatal("has a bare CR or LF")
	}
	checkLengths(t, rendered)
	checkFields(t, m, rendered)
	checkFiles(t, m, rendered)
	checkParts(t, rendered)
	e, err := m.Envelope()
	if err != nil && m.FromEmail != "" {
		t.Fatalf("no envelope: %v", err)
	}
	for _, a := range append(e.To, e.From) {
		if strings.ContainsAny(a, "\r\n\x00<>") && !strings.Contains(a, `"`) || strings.ContainsAny(a, "\r\n\x00") || len(a) > 498 {
			t.Fatalf("has the address %q in its envelope", a)
		}
	}
}

// FuzzJSON: a message that went through JSON renders the same bytes.
func FuzzJSON(f *testing.F) {
	fuzzMessages(f, func(t *testing.T, m *mailer.EmailMessage) {
		var want bytes.Buffer
		_, wantErr := m.WriteTo(&want)
		data, err := json.Marshal(m)
		if err != nil {
			if wantErr == nil {
				t.Fatalf("renders, but has no JSON: %v", err)
			}
			return
		}
		var decoded mailer.EmailMessage
		if err := json.Unmarshal(data, &decoded); err != nil {
			t.Fatalf("cannot be decoded: %v\n%s", err, data)
		}
		var got bytes.Buffer
		_, gotErr := decoded.WriteTo(&got)
		if (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("got %v, want %v", gotErr, wantErr)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("got:\n%q\nwant:\n%q", got.Bytes(), want.Bytes())
		}
		again, err := json.Marshal(decoded)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("encodes differently the second time: %v\n%s\n%s", err, again, data)
		}
	})
}

// FuzzUnmarshalJSON: the decoder takes nothing that encoding/json does not, and
// understands it alike.
func FuzzUnmarshalJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"subject": "a\u00e9\ud83d\ude00\n\/", "to": ["a", null], "cc": null, "headers": {"X": "1"}}`,
		`{"attachments": [{"content": "YQ==", "filename": "a"}, {"content": null}], "alternatives": [{"content": "x", "mimetype": "text/html"}]}`,
		`{"fail_silently": true, "date": "2026-01-02T03:04:05Z"}`, `{"subject": "\ud800"}`, `{"subject"`, `{"subject": "a\`, `{"body": 1}`, `{"x": 1}`, `{} {}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m mailer.EmailMessage
		err := m.UnmarshalJSON(data)
		if err != nil {
			if !mailer.IsBadInput(err) {
				t.Fatalf("not bad input: %v", err)
			}
			return
		}
		var want map[string]any
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json says %v", err)
		}
		for key, got := range map[string]any{
			"subject": m.Subject, "body": m.Body, "from_email": m.FromEmail, "charset": m.Charset,
			"content_subtype": m.ContentSubtype, "message_id": m.MessageID, "fail_silently": m.FailSilently,
			"to": m.To, "cc": m.Cc, "bcc": m.Bcc, "reply_to": m.ReplyTo, "headers": m.Headers,
		} {
			if !sameJSON(t, got, want[key]) {
				t.Fatalf("%s: got %#v, want %#v", key, got, want[key])
			}
		}
	})
}

// sameJSON compares by way of JSON, where null is what is empty.
func sameJSON(t *testing.T, got, want any) bool {
	t.Helper()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(b); s == `""` || s == "[]" || s == "{}" || s == "false" {
			return "null"
		}
		// null in a list or in headers is empty text.
		return strings.NewReplacer("[null", `[""`, ",null", `,""`, ":null", `:""`).Replace(string(b))
	}
	return text(got) == text(want)
}

// FuzzHeaderGrammar: whatever is the value of a field that has a grammar, a reader finds the parts
// that were given, in ASCII and in lines that are short enough.
func FuzzHeaderGrammar(f *testing.F) {
	for i, value := range []string{
		"<https://b\u00fccher.example/\u00fc>, <mailto:a@b?subject=x y> (\u00fc), https://example.com", "\u00dc <a.b>", "a, \"\u00fc, x\" (\u00fc), b",
		"A: \u00fc <a@b>, b@c (\u00fc \\) (x));, D:;", "<a@b> <c>,d@e (\u00fc)", "Fri, 2 Jan 2026 03:04:05 +0100 (\u00fc)", "1 (\u00fc" + strings.Repeat(" x", 60) + ")",
	} {
		for j := range 5 {
			f.Add(uint8(7*j+i), value, []string{"", "iso-2022-jp"}[j%2])
		}
	}
	names := append([]string{"To", "Sender", "From", "Errors-To"}, structured...)
	f.Fuzz(func(t *testing.T, i uint8, value, charset string) {
		m := message(withHeader(names[int(i)%len(names)], value))
		m.Charset = charset
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			if !mailer.IsBadInput(err) {
				t.Fatalf("not bad input: %v", err)
			}
			return
		}
		checkSafe(t, m, b.String())
	})
}
