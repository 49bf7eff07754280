package mailer_test

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestHeader_grammar: what a field becomes by the grammar of its name. Only what people read is
// encoded: everything else would not be found again.
func TestHeader_grammar(t *testing.T) {
	const (
		joerg = "=?utf-8?b?SsO2cmc=?="
		uuml  = "=?utf-8?b?w7w=?="
	)
	long := "https://example.com/u/" + strings.Repeat("x", 200)
	tests := []struct {
		name  string
		field string
		value string
		want  string // "" if it is refused
	}{
		{"URL", "List-Unsubscribe", "<https://example.com/a?n=J\u00f6rg>", "<https://example.com/a?n=J%C3%B6rg>"},
		{"URL in ASCII", "List-Unsubscribe", "<https://example.com/a?n=%C3%B6&x=[1]#y>", "<https://example.com/a?n=%C3%B6&x=[1]#y>"},
		{"URL with blanks", "List-Unsubscribe", "<mailto:a@example.com?subject=take me off>", "<mailto:a@example.com?subject=take%20me%20off>"},
		{"URL with percent signs", "List-Unsubscribe", "<https://example.com/100%?x=%zz%4>", "<https://example.com/100%25?x=%25zz%254>"},
		{"URL and mailto", "List-Unsubscribe", "<https://example.com/\u00fc>,<mailto:a@example.com?subject=\u00fc>",
			"<https://example.com/%C3%BC>,\r\n <mailto:a@example.com?subject=%C3%BC>"},
		{"long URL", "list-unsubscribe", "<" + long + "\u00fc>", "<" + long + "%C3%BC>"},
		{"host beyond ASCII", "List-Archive", "<https://m\u00fcller@b\u00fccher.example:8080/\u00fc?x=y@z>", "<https://m%C3%BCller@xn--bcher-kva.example:8080/%C3%BC?x=y@z>"},
		{"host of an address", "List-Post", "<mailto:j\u00f6rg@b\u00fccher.example,a@example.com?cc=\u00fc>", "<mailto:j%C3%B6rg@xn--bcher-kva.example,a@example.com?cc=%C3%BC>"},
		{"host in numbers", "List-Help", "<http://[2001:db8::1]:80/\u00fc>", "<http://[2001:db8::1]:80/%C3%BC>"},
		{"URL without brackets", "List-Unsubscribe", "https://example.com/(a), mailto:a@example.com", "<https://example.com/(a)>, <mailto:a@example.com>"},
		{"URL with a comment", "List-Help", "<https://example.com/> (f\u00fcr J\u00f6rg)", "<https://example.com/> (=?utf-8?b?ZsO8ciBKw7ZyZw==?=)"},
		{"nobody may post", "List-Post", "NO (closed)", "NO (closed)"},
		{"archived message", "Archived-At", "<https://example.com/\u00fc>", "<https://example.com/%C3%BC>"},
		{"no URL", "List-Unsubscribe", "unsubscribe", ""},
		{"no scheme", "List-Unsubscribe", "<unsubscribe@example.com>", ""},
		{"no host", "List-Unsubscribe", "<https://\u00fc..example/>", ""},
		{"comment alone", "List-Help", "(write to us)", ""},
		{"bracket that is not closed", "List-Help", "<https://example.com/", ""},

		{"list id", "List-Id", "J\u00f6rg's list <list.example.com>", "=?utf-8?b?SsO2cmcncyBsaXN0?= <list.example.com>"},
		{"list id in ASCII", "List-ID", "\"A, B\" <list.example.com>", "\"A, B\" <list.example.com>"},
		{"list id alone", "List-ID", "<list.example.com> (\u00fc)", "<list.example.com> (" + uuml + ")"},
		{"list id beyond ASCII", "List-ID", "<\u00fc.example.com>", ""},
		{"list id without an id", "List-ID", "\u00fc", ""},

		{"address", "Disposition-Notification-To", "J\u00f6rg <a@example.com>", joerg + " <a@example.com>"},
		{"addresses", "Mail-Followup-To", "list@example.com, J\u00f6rg <a@b\u00fccher.example>", "list@example.com,\r\n " + joerg + " <a@xn--bcher-kva.example>"},
		{"no address", "Disposition-Notification-To", "yes please", ""},

		{"references", "References", "<a@example.com>  <b@example.com> (J\u00f6rg)", "<a@example.com> <b@example.com> (" + joerg + ")"},
		{"references with commas", "References", "<a@example.com>, <b@example.com>", "<a@example.com> <b@example.com>"},
		{"references without brackets", "In-Reply-To", "a@example.com", "<a@example.com>"},
		{"references of others", "References", "<a,b> <\"x\"@[192.0.2.1]>", "<a,b> <\"x\"@[192.0.2.1]>"},
		{"references beyond ASCII", "References", "<\u00fc@example.com>", ""},
		{"references in words", "In-Reply-To", "Your message of yesterday", ""},
		{"id", "Message-ID", "a@example.com", "<a@example.com>"},
		{"id in quotes", "Message-ID", "<\"a@b\"@example.com>", "<\"a@b\"@example.com>"},
		{"id of a resending", "Resent-Message-Id", "a@example.com", "<a@example.com>"},
		{"id of a resending that is none", "Resent-Message-Id", "a", ""},

		{"date", "Date", "Fri, 2 Jan 2026 03:04:05 +0100 (Mitteleurop\u00e4ische Zeit)", "Fri, 2 Jan 2026 03:04:05 +0100 (=?utf-8?q?Mitteleurop=C3=A4ische_Ze?=\r\n =?utf-8?q?it?=)"},
		{"date in ASCII", "Resent-Date", "02 Jan 2026 03:04 GMT (now)", "02 Jan 2026 03:04 GMT (now)"},
		{"no date", "Resent-Date", "(now)", ""},
		{"date beyond ASCII", "Date", "Fr\u00fch, 2 Jan 2026 03:04:05 +0100", ""},

		{"keywords", "Keywords", "mail, Gr\u00fc\u00dfe aus K\u00f6ln, \"a, \u00fc\",", "mail, =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4=?= , =?utf-8?b?YSwgw7w=?="},
		{"comment", "X-Priority", "1 (h\u00f6chste)", "1 (=?utf-8?q?h=C3=B6chste?=)"},
		{"comments in comments", "Auto-Submitted", "auto-replied (\u00fc (x) \\) y)", "auto-replied (=?utf-8?b?w7wgKHgpICkgeQ==?=)"},
		{"token beyond ASCII", "Auto-Submitted", "\u00fc", ""},

		{"text", "X-Test", "<https://example.com/\u00fc>", "=?utf-8?q?<https://example.com/=C3=BC>?="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(withHeader(tt.field, tt.value))
			if tt.want == "" {
				wantBadInput(t, m.Validate(), "headers["+tt.field+"]", false)
				return
			}
			rendered := render(t, m)
			if got := rawHeader(t, rendered, tt.field); got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
			checkFields(t, m, rendered)
			checkWords(t, rendered)
		})
	}
}

// A field of a raw message that is not ASCII is written by the same grammar.
func TestRaw_grammar(t *testing.T) {
	for field, want := range map[string]string{
		"List-Unsubscribe: <https://example.com/a?n=J\u00f6rg>": "List-Unsubscribe: <https://example.com/a?n=J%C3%B6rg>",
		"Mail-Followup-To: \u00fc <a@example.com>":              "Mail-Followup-To: =?utf-8?b?w7w=?= <a@example.com>",
		"To: Gr\u00fcppe: a@example.com;":                       "To: =?utf-8?q?Gr=C3=BCppe?= : a@example.com;",
		"X-Priority: 1 (\u00fc)":                                "X-Priority: 1 (=?utf-8?b?w7w=?=)",
		"Date: Fri, 2 Jan 2026 03:04:05 +0100 (\u00fc)":         "Date: Fri, 2 Jan 2026 03:04:05 +0100 (=?utf-8?b?w7w=?=)",
		"List-Help: see <https://example.com/a>":                "List-Help: see <https://example.com/a>", // in ASCII it is the author's

		// What breaks the grammar keeps the words that programs look for.
		"References: <a@b> \u00fc <c@d>":                        "References: <a@b> =?utf-8?b?w7w=?= <c@d>",
		"References: =?utf-8?q?x?= \u00fc <c@d>":                "References: =?utf-8?q?x?= =?utf-8?b?IMO8?= <c@d>",
		"In-Reply-To: M\u00fcller's  \u00fc message <a@b>":      "In-Reply-To: =?utf-8?b?TcO8bGxlcidzIMO8?= message <a@b>",
		"Cc: \u00fc <a@example.com>, \u00fc b":                  "Cc: =?utf-8?b?w7w=?= <a@example.com>, =?utf-8?b?w7w=?= b",
		"Received: from x (\u00fc [192.0.2.1]) by y; \u00fc":    "Received: from x =?utf-8?b?KMO8?= [192.0.2.1]) by y; =?utf-8?b?w7w=?=",
		"MIME-Version: 1.0 (\u00fc)":                            "MIME-Version: 1.0 (=?utf-8?b?w7w=?=)",
		"List-Unsubscribe: <https://example.com/a>, see \u00fc": "List-Unsubscribe: <https://example.com/a>, see =?utf-8?b?w7w=?=",
	} {
		if got := renderRaw(t, rawMessage(rawHead+field+"\n\n")); !strings.Contains(got, "\r\n"+want+"\r\n") {
			t.Errorf("%s: got %q", field, got)
		}
	}
}

// A field that has a grammar may not be empty, and says nothing then: it is left out.
func TestHeader_emptyStructured(t *testing.T) {
	for _, name := range []string{"References", "List-Unsubscribe", "Sender", "Resent-Date", "Keywords", "X-Priority"} {
		if rendered := render(t, message(withHeader(name, " "))); strings.Contains(rendered, name+":") {
			t.Errorf("%s is there", name)
		}
	}
	if rendered := render(t, message(withHeader("X-Test", ""))); !strings.Contains(rendered, "X-Test: \r\n") {
		t.Error("a field of text is not there")
	}
}

// A message by several authors has to say who sent it (RFC 5322, 3.6.2).
func TestHeader_sender(t *testing.T) {
	const authors = "Ann <ann@example.com>, b@example.com"
	tests := []struct {
		name   string
		change func(m *mailer.EmailMessage)
		want   string // "" if there is none
	}{
		{"one author", withHeader("From", "Ann <ann@example.com>"), ""},
		{"two authors", withHeader("from", authors), "Shop <from@example.com>"},
		{"a group of them", withHeader("From", "Us: "+authors+";"), "Shop <from@example.com>"},
		{"two authors and a sender", func(m *mailer.EmailMessage) {
			m.Headers["From"], m.Headers["sender"] = authors, "c@example.com"
		}, "c@example.com"},
		{"two authors and an empty sender", func(m *mailer.EmailMessage) {
			m.Headers["From"], m.Headers["Sender"] = authors, ""
		}, "Shop <from@example.com>"},
		{"two authors, not complete yet", func(m *mailer.EmailMessage) { m.FromEmail, m.Headers["From"] = "", authors }, "Ann <ann@example.com>"},
		{"one author and a sender", withHeader("Sender", "c@example.com"), "c@example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, message(func(m *mailer.EmailMessage) { m.FromEmail = "Shop <from@example.com>" }, tt.change))
			if got := rawHeader(t, rendered, "Sender"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// So has one that several people resend (RFC 5322, 3.6.6).
func TestHeader_resentSender(t *testing.T) {
	const resent = "Ann <ann@example.com>, b@example.com"
	for _, tt := range []struct {
		headers map[string]string
		want    string
	}{
		{map[string]string{"Resent-From": "ann@example.com"}, ""},
		{map[string]string{"Resent-From": resent}, "from@example.com"},
		{map[string]string{"Resent-From": resent, "Resent-Sender": ""}, "from@example.com"},
		{map[string]string{"Resent-From": resent, "resent-sender": "c@example.com"}, "c@example.com"},
		{map[string]string{"Resent-From": "", "Resent-Sender": "c@example.com"}, "c@example.com"},
	} {
		rendered := render(t, message(func(m *mailer.EmailMessage) { m.Headers = tt.headers }))
		if got := rawHeader(t, rendered, "Resent-Sender"); got != tt.want || strings.Count(rendered, "Resent-Sender:") > 1 {
			t.Errorf("%v: got %q, want %q", tt.headers, got, tt.want)
		}
	}
}

// An ID without angle brackets gets them where it is fixed, so that all who name the message agree.
func TestWithDefaults_completesMessageID(t *testing.T) {
	for _, m := range []*mailer.EmailMessage{
		message(func(m *mailer.EmailMessage) { m.MessageID = "a@example.com" }),
		message(func(m *mailer.EmailMessage) { m.MessageID, m.Headers["message-id"] = "", "a@example.com" }),
	} {
		filled := m.WithDefaults(mailer.Defaults{})
		if filled.MessageID != "<a@example.com>" || rawHeader(t, render(t, filled), "Message-ID") != "<a@example.com>" {
			t.Errorf("got %q, %q", filled.MessageID, render(t, filled))
		}
		if got := rawHeader(t, render(t, m), "Message-ID"); got != "<a@example.com>" {
			t.Errorf("without defaults: got %q", got)
		}
	}
	raw := rawMessage("From: a@example.com\nMessage-ID: foo\n\n").WithDefaults(mailer.Defaults{})
	if raw.MessageID != "foo" || raw.Validate() != nil {
		t.Errorf("that of a raw message is found under its name: got %q, %v", raw.MessageID, raw.Validate())
	}
}
