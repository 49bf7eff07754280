package mailer_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// fields sets each text field that reaches a header, by the name that errors give it.
var fields = []struct {
	name string
	set  func(m *mailer.EmailMessage, s string)
	good string
}{
	{"subject", func(m *mailer.EmailMessage, s string) { m.Subject = s }, "text"},
	{"from_email", func(m *mailer.EmailMessage, s string) { m.FromEmail = s }, "a@example.com"},
	{"to[1]", func(m *mailer.EmailMessage, s string) { m.To = []string{"x@example.com", s} }, "A <a@example.com>"},
	{"cc[0]", func(m *mailer.EmailMessage, s string) { m.Cc = []string{s} }, "a@example.com"},
	{"bcc[2]", func(m *mailer.EmailMessage, s string) { m.Bcc = []string{"", "x@example.com", s} }, "a@example.com"},
	{"reply_to[0]", func(m *mailer.EmailMessage, s string) { m.ReplyTo = []string{s} }, "a@example.com"},
	{"headers[X-Id]", func(m *mailer.EmailMessage, s string) { m.Headers["X-Id"] = s }, "text"},
	{"headers[to]", func(m *mailer.EmailMessage, s string) { m.Headers["to"] = s }, "a@example.com"},
	{"headers[Bcc]", func(m *mailer.EmailMessage, s string) { m.Headers["Bcc"] = s }, "a@example.com"},
	{"headers[Return-Path]", func(m *mailer.EmailMessage, s string) { m.Headers["Return-Path"] = s }, "a@example.com"},
	{"headers[Date]", func(m *mailer.EmailMessage, s string) { m.Headers["Date"] = s }, "02 Jan 2026 03:04:05 GMT"},
	{"content_subtype", func(m *mailer.EmailMessage, s string) { m.ContentSubtype = s }, "html"},
	{"charset", func(m *mailer.EmailMessage, s string) { m.Charset = s }, "utf-8"},
	{"message_id", func(m *mailer.EmailMessage, s string) { m.MessageID = s }, "<a@example.com>"},
	{"headers[message-id]", func(m *mailer.EmailMessage, s string) { m.Headers["message-id"] = s }, "<a@example.com>"},
	{"attachments[0].filename", func(m *mailer.EmailMessage, s string) { m.Attach(s, []byte("x"), "image/png") }, "text"},
	{"attachments[0].mimetype", func(m *mailer.EmailMessage, s string) { m.Attach("x", []byte("x"), s) }, "image/png"},
	{"attachments[1].content_id", func(m *mailer.EmailMessage, s string) {
		m.Attachments = []mailer.Attachment{{}, {ContentID: s}}
	}, "logo"},
	{"alternatives[0].mimetype", func(m *mailer.EmailMessage, s string) { m.AttachAlternative("x", s) }, "text/html"},
}

func TestValidate_controls(t *testing.T) {
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			good := message()
			f.set(good, f.good)
			if err := good.Validate(); err != nil {
				t.Fatal(err)
			}
			for c := range byte(0x80) {
				if c >= ' ' && c != 0x7f || c == '\t' {
					continue
				}
				for _, s := range []string{f.good + string(rune(c)), string(rune(c)) + f.good, f.good[:1] + string(rune(c)) + f.good[1:]} {
					m := message()
					f.set(m, s)
					err := m.Validate()
					wantBadInput(t, err, f.name, true)
					if err != nil && strings.ContainsRune(err.Error(), rune(c)) {
						t.Errorf("%q is in the error", c)
					}
					var b bytes.Buffer
					if n, err := m.WriteTo(&b); err == nil || n != 0 || b.Len() != 0 {
						t.Errorf("WriteTo wrote %d octets, %v", n, err)
					}
				}
			}
		})
	}
}

func TestValidate_UTF8(t *testing.T) {
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			m := message()
			f.set(m, f.good+"\xff")
			wantBadInput(t, m.Validate(), f.name, false)
		})
	}
}

func TestValidate_tabs(t *testing.T) {
	for _, f := range fields {
		m := message()
		f.set(m, f.good+"\tx")
		err := m.Validate()
		switch f.name {
		case "subject", "headers[X-Id]":
			if err != nil {
				t.Error(err)
			}
		default:
			if err == nil {
				t.Errorf("%s: a tab is accepted", f.name)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(m *mailer.EmailMessage)
		field  string // "" if nothing is wrong
		header bool   // a BadHeaderError
	}{
		{"complete", func(*mailer.EmailMessage) {}, "", false},
		{"nobody to send it to", func(m *mailer.EmailMessage) { m.To = nil }, "", false},
		{"not complete yet", func(m *mailer.EmailMessage) { m.FromEmail, m.MessageID, m.Date = "", "", time.Time{} }, "", false},
		{"empty addresses", func(m *mailer.EmailMessage) { m.Cc = []string{"", " "} }, "", false},
		{"body of controls", withBody("\x00\x01\r\n"), "", false},

		{"header name with colon", withHeader("X:", ""), `headers["X:"]`, true},
		{"header name with blank", withHeader("X Y", ""), `headers["X Y"]`, true},
		{"header name with newline", withHeader("X\r\nBcc", ""), `headers["X\r\nBcc"]`, true},
		{"header name beyond ASCII", withHeader("\u00dc", ""), `headers["\u00dc"]`, true},
		{"empty header name", withHeader("", "x"), `headers[""]`, true},
		{"subject in headers", withHeader("SUBJECT", "x"), "headers[SUBJECT]", false},
		{"MIME-Version in headers", withHeader("Mime-version", "1.0"), "headers[Mime-version]", false},
		{"Content-Type in headers", withHeader("content-type", "text/html"), "headers[content-type]", false},
		{"Content-Disposition in headers", withHeader("Content-Disposition", "inline"), "headers[Content-Disposition]", false},
		{"Content-Language in headers", withHeader("Content-Language", "de"), "", false},
		{"header twice", func(m *mailer.EmailMessage) { m.Headers["X-A"], m.Headers["x-a"] = "1", "2" }, "headers[x-a]", false},
		{"header that cannot be folded", withHeader("X-A", strings.Repeat("x", 1000)), "headers[X-A]", false},
		{"header name that is too long", withHeader(strings.Repeat("x", 1000), "\u00e9"), "headers[" + strings.Repeat("x", 1000) + "]", false},
		{"addresses that cannot be encoded", withHeader("Sender", "a b \u00e9"), "headers[Sender]", false},

		{"two addresses in one", func(m *mailer.EmailMessage) { m.To = []string{"a@example.com, b@example.com"} }, "to[0]", false},
		{"two senders", func(m *mailer.EmailMessage) { m.FromEmail = "a@example.com, b@example.com" }, "from_email", false},
		{"two return paths", withHeader("Return-Path", "a@example.com, b@example.com"), "headers[Return-Path]", false},
		{"no address", func(m *mailer.EmailMessage) { m.Bcc = []string{"no address"} }, "bcc[0]", false},
		{"bad Bcc in headers", withHeader("bcc", "a@example.com, no address"), "headers[bcc]", false},

		{"unknown charset", func(m *mailer.EmailMessage) { m.Charset = "klingon" }, "charset", false},
		{"subtype with blank", func(m *mailer.EmailMessage) { m.ContentSubtype = "pl ain" }, "content_subtype", false},
		{"body is not UTF-8", withBody("\xff"), "body", false},
		{"alternative is not UTF-8", withAlternative("\xff", "text/html"), "alternatives[0].content", false},
		{"alternative without type", withAlternative("x", ""), "alternatives[0].mimetype", false},
		{"alternative of half a type", withAlternative("x", "text"), "alternatives[0].mimetype", false},
		{"alternative is a multipart", withAlternative("x", "multipart/mixed; boundary=x"), "alternatives[0].mimetype", false},
		{"attachment is a multipart", withAttachment(mailer.Attachment{Mimetype: "Multipart/Mixed"}), "attachments[0].mimetype", false},
		{"newline hidden in a type", withAttachment(mailer.Attachment{Mimetype: "text/plain; x*=utf-8''a%0D%0Ab"}), "attachments[0].mimetype", true},
		{"type that is too long", withAttachment(mailer.Attachment{Mimetype: "image/" + strings.Repeat("x", 400)}), "attachments[0].mimetype", false},
		{"file name that is too long", withAttachment(mailer.Attachment{Filename: strings.Repeat("x", 1021)}), "attachments[0].filename", false},
		{"content id with blank", withAttachment(mailer.Attachment{ContentID: "a b"}), "attachments[0].content_id", false},
		{"content id in brackets", withAttachment(mailer.Attachment{ContentID: "<a>"}), "", false},
		{"content id in half brackets", withAttachment(mailer.Attachment{ContentID: "<a"}), "attachments[0].content_id", false},

		{"message id with blank", func(m *mailer.EmailMessage) { m.MessageID = "<a b@c>" }, "message_id", false},
		{"two message ids", func(m *mailer.EmailMessage) { m.MessageID = "<a@b><c@d>" }, "message_id", false},
		{"empty brackets", func(m *mailer.EmailMessage) { m.MessageID = "<>" }, "message_id", false},
		{"message id that is too long", func(m *mailer.EmailMessage) { m.MessageID = "<" + strings.Repeat("x", 1000) + ">" }, "message_id", false},
		{"message id in headers", withHeader("Message-ID", "a b"), "headers[Message-ID]", false},
		{"message id without brackets", withHeader("Message-ID", "foo@example.com"), "", false},
		{"message id of one side", withHeader("Message-ID", "foo"), "headers[Message-ID]", false},
		{"message id of three sides", func(m *mailer.EmailMessage) { m.MessageID = "<a@b@c>" }, "message_id", false},
		{"message id with a comma", func(m *mailer.EmailMessage) { m.MessageID = "<a,b@c>" }, "message_id", false},
		{"message id beyond ASCII", func(m *mailer.EmailMessage) { m.MessageID = "<\u00fc@c>" }, "message_id", false},
		{"date in words", withHeader("Date", "tomorrow"), "headers[Date]", false},
		{"date of other formats", withHeader("Date", "2026-01-02 03:04:05"), "headers[Date]", false},
		{"sender in words", withHeader("From", "Support Team"), "headers[From]", false},
		{"recipients in words", withHeader("To", "undisclosed recipients"), "headers[To]", false},
		{"only a comma", withHeader("Cc", ","), "headers[Cc]", false},
		{"group without an end", withHeader("To", "A: a@example.com"), "headers[To]", false},
		{"group in a group", withHeader("To", "A: B: a@example.com;;"), "headers[To]", false},
		{"group in a blind copy", withHeader("Bcc", "A: a@example.com;"), "headers[Bcc]", false},
		{"sender that is too long for its line", func(m *mailer.EmailMessage) {
			m.FromEmail, m.Headers["From"] = "a@example.com ("+strings.Repeat("n", 1000)+")", "a@example.com, b@example.com"
		}, "from_email", false},
		{"two senders in one", withHeader("Sender", "a@example.com, b@example.com"), "headers[Sender]", false},
		{"date before mail", func(m *mailer.EmailMessage) { m.Date = time.Date(1, 2, 3, 4, 5, 6, 0, time.UTC) }, "date", false},
		{"date of five digits", func(m *mailer.EmailMessage) { m.Date = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "date", false},
		{"zone of two days", func(m *mailer.EmailMessage) { m.Date = m.Date.In(time.FixedZone("x", 48*3600)) }, "date", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := message(tt.change).Validate()
			if tt.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantBadInput(t, err, tt.field, tt.header)
		})
	}
}
