package mailer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestEnvelope_address(t *testing.T) {
	long := strings.Repeat("x", 64)
	domain := strings.Repeat(strings.Repeat("d", 59)+".", 3) + "example"    // 187 octets
	longest := strings.Repeat("x", 512-len("MAIL FROM:<@example.com>\r\n")) // a command fills its line
	tests := []struct {
		name    string
		address string
		want    string // "" if it is refused
		header  string // of To, where it is not want
	}{
		{name: "bare", address: "fred@example.com", want: "fred@example.com"},
		{name: "blanks around", address: " fred@example.com ", want: "fred@example.com"},
		{name: "in brackets", address: "<fred@example.com>", want: "fred@example.com"},
		{name: "with name", address: "Fred Smith <fred@example.com>", want: "fred@example.com", header: "Fred Smith <fred@example.com>"},
		{name: "without a blank", address: "Fred<fred@example.com>", want: "fred@example.com", header: "Fred <fred@example.com>"},
		{name: "quoted name", address: `"Smith, Fred" <fred@example.com>`, want: "fred@example.com", header: `"Smith, Fred" <fred@example.com>`},
		{name: "needless quotes", address: `"Fred" <fred@example.com>`, want: "fred@example.com", header: "Fred <fred@example.com>"},
		{name: "quotes in name", address: `"a \"b\" \\c" <fred@example.com>`, want: "fred@example.com", header: `"a \"b\" \\c" <fred@example.com>`},
		{name: "empty name", address: `"" <fred@example.com>`, want: "fred@example.com"},
		{name: "dots in name", address: "J. R. Smith <jr@example.com>", want: "jr@example.com", header: `"J. R. Smith" <jr@example.com>`},
		{name: "brackets in name", address: "[App] Admin <a@example.com>", want: "a@example.com", header: `"[App] Admin" <a@example.com>`},
		{name: "apostrophe in name", address: "O'Brien <ob@example.com>", want: "ob@example.com", header: "O'Brien <ob@example.com>"},
		{name: "name beyond ASCII", address: "J\u00f6rg <j@example.com>", want: "j@example.com", header: "=?utf-8?b?SsO2cmc=?= <j@example.com>"},
		{name: "encoded name", address: "=?utf-8?q?J=C3=B6rg?= <j@example.com>", want: "j@example.com", header: "=?utf-8?q?J=C3=B6rg?= <j@example.com>"},
		{name: "encoded name and local part beyond ASCII", address: "=?utf-8?q?J=C3=B6rg?= <j\u00f6rg@example.com>", want: "j\u00f6rg@example.com", header: "=?utf-8?q?J=C3=B6rg?= <j\u00f6rg@example.com>"},
		{name: "what looks like an encoded name", address: `"=?utf-8?q?x?=" <j@example.com>`, want: "j@example.com", header: `"=?utf-8?q?x?=" <j@example.com>`},
		{name: "comment after", address: "fred@example.com (Fred (F) Smith)", want: "fred@example.com", header: "fred@example.com (Fred (F) Smith)"},
		{name: "comment in name", address: "Fred (F) Smith <fred@example.com>", want: "fred@example.com", header: "Fred (F) Smith <fred@example.com>"},
		{name: "at sign in quoted name", address: `"fred@other.example" <fred@example.com>`, want: "fred@example.com", header: `"fred@other.example" <fred@example.com>`},
		{name: "local part only", address: "root", want: "root"},
		{name: "local part only, with name", address: "Root <root>", want: "root", header: "Root <root>"},
		{name: "quoted local part", address: `"a b"@example.com`, want: `"a b"@example.com`},
		{name: "two at signs", address: `"a@b"@example.com`, want: `"a@b"@example.com`},
		{name: "needless quotes in local part", address: `"fred"@example.com`, want: "fred@example.com"},
		{name: "bracket in local part", address: `<"a>b"@example.com>`, want: `"a>b"@example.com`},
		{name: "dots where they should not be", address: ".a..b.@example.com", want: ".a..b.@example.com"},
		{name: "plus", address: "fred+tag=x@example.com", want: "fred+tag=x@example.com"},
		{name: "IDN", address: "a@b\u00fccher.example", want: "a@xn--bcher-kva.example"},
		{name: "IDN of one label", address: "a@b\u00fccher.XN--BCHER-KVA.example", want: "a@xn--bcher-kva.xn--bcher-kva.example"},
		{name: "IDN in capitals", address: "a@B\u00dcCHER.example", want: "a@xn--bcher-kva.example"},
		{name: "IDN with ideographic dot", address: "a@\u65e5\u672c\u3002jp", want: "a@xn--wgv71a.jp"},
		{name: "IDN with sharp s", address: "a@stra\u00dfe.example", want: "a@strasse.example"},
		{name: "punycode stays", address: "a@xn--fa-hia.example", want: "a@xn--fa-hia.example"},
		{name: "letter case stays", address: "Fred@Example.COM", want: "Fred@Example.COM"},
		{name: "local part beyond ASCII", address: "j\u00f6rg@b\u00fccher.example", want: "j\u00f6rg@xn--bcher-kva.example"},
		{name: "underscore in domain", address: "a@my_host.example", want: "a@my_host.example"},
		{name: "IPv4", address: "a@[192.0.2.1]", want: "a@[192.0.2.1]"},
		{name: "IPv6", address: "a@[IPv6:2001:db8::1]", want: "a@[IPv6:2001:db8::1]"},
		{name: "IPv6 in brackets", address: "A <a@[IPv6:2001:db8::1]>", want: "a@[IPv6:2001:db8::1]", header: "A <a@[IPv6:2001:db8::1]>"},
		{name: "longest local part that servers must take", address: long + "@example.com", want: long + "@example.com"},
		{name: "reply address of GitHub", address: "reply+" + long + "@reply.github.com", want: "reply+" + long + "@reply.github.com"},
		{name: "SRS", address: "SRS0=HHHH=TT=" + long + "=" + long + "@example.com", want: "SRS0=HHHH=TT=" + long + "=" + long + "@example.com"},
		{name: "more than the longest path that servers must take", address: long + "@" + domain + ".xx", want: long + "@" + domain + ".xx"},
		{name: "longest address", address: longest + "@example.com", want: longest + "@example.com"},

		{name: "longer than a line", address: longest + "x@example.com"},
		{name: "domain too long", address: "a@" + domain + "." + domain},
		{name: "label too long", address: "a@" + long + ".example"},
		{name: "two addresses", address: "a@example.com, b@example.com"},
		{name: "two addresses without comma", address: "a@example.com b@example.com"},
		{name: "address as a name", address: "a@example.com <b@example.com>"},
		{name: "two in brackets", address: "<a@example.com><b@example.com>"},
		{name: "text after brackets", address: "<a@example.com> b"},
		{name: "two at signs without quotes", address: "a@b@example.com"},
		{name: "blank in local part", address: "a b@example.com"},
		{name: "blank before at", address: "a @example.com"},
		{name: "non-breaking space", address: "a\u00a0b@example.com"},
		{name: "line separator", address: "a\u2028b@example.com"},
		{name: "line separator in quotes", address: "\"a\u2028b\"@example.com"},
		{name: "next line", address: "a\u0085b@example.com"},
		{name: "no local part", address: "@example.com"},
		{name: "no domain", address: "a@"},
		{name: "empty label", address: "a@example..com"},
		{name: "dot at the end", address: "a@example.com."},
		{name: "null sender", address: "<>"},
		{name: "source route", address: "<@a.example:b@example.com>"},
		{name: "group", address: "friends: a@example.com;"},
		{name: "quote not closed", address: `"Fred <fred@example.com>`},
		{name: "local part's quote not closed", address: `<"fred@example.com>`},
		{name: "bracket not closed", address: "Fred <fred@example.com"},
		{name: "bracket not opened", address: "fred@example.com>"},
		{name: "comment not closed", address: "fred@example.com (Fred"},
		{name: "comment not opened", address: "fred@example.com )"},
		{name: "comment alone", address: "(Fred)"},
		{name: "backslash", address: `fred\@example.com`},
		{name: "bad literal", address: "a@[192.0.2.1"},
		{name: "literal with blank", address: "a@[192 0]"},
		{name: "slash in domain", address: "a@example.com/x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(func(m *mailer.EmailMessage) { m.To = []string{tt.address} })
			e, err := m.Envelope()
			if tt.want == "" {
				wantBadInput(t, err, "to[0]", false)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.To, []string{tt.want}) {
				t.Errorf("got %q, want %q", e.To, tt.want)
			}
			want := tt.header
			if want == "" {
				want = tt.want
			}
			if got := rawHeader(t, render(t, m), "To"); got != want {
				t.Errorf("header: got %q, want %q", got, want)
			}
		})
	}
}

func TestEnvelope(t *testing.T) {
	tests := []struct {
		name       string
		change     func(m *mailer.EmailMessage)
		from       string
		to         []string
		recipients []string // where they are not to
		utf8       bool
	}{
		{name: "all lists", from: "from@example.com", change: func(m *mailer.EmailMessage) {
			m.Cc, m.Bcc = []string{"c@example.com"}, []string{"b@example.com"}
			m.Headers["BCC"] = "B <h1@example.com>, h2@example.com"
		}, to: []string{"to@example.com", "c@example.com", "b@example.com", "h1@example.com", "h2@example.com"},
			recipients: []string{"to@example.com", "c@example.com", "b@example.com", "B <h1@example.com>", "h2@example.com"}},
		{name: "Resent-Bcc", from: "from@example.com", change: withHeader("resent-bcc", "h@example.com"),
			to: []string{"to@example.com", "h@example.com"}},
		{name: "twice", from: "from@example.com", change: func(m *mailer.EmailMessage) {
			m.To = []string{"A <a@example.com>", "a@EXAMPLE.com", "A@example.com", "a@example.com", "A <a@example.com>"}
		}, to: []string{"a@example.com", "A@example.com"},
			recipients: []string{"A <a@example.com>", "a@EXAMPLE.com", "A@example.com", "a@example.com"}},
		{name: "empty entries", from: "from@example.com", change: func(m *mailer.EmailMessage) {
			m.To, m.Cc = []string{"", "a@example.com", " "}, []string{""}
		}, to: []string{"a@example.com"}},
		{name: "nobody", from: "from@example.com", change: func(m *mailer.EmailMessage) { m.To = nil }},
		{name: "To of the header only", from: "from@example.com", change: func(m *mailer.EmailMessage) {
			m.To = nil
			m.Headers["To"] = "list@example.com"
		}},
		{name: "From of the header", from: "from@example.com", change: withHeader("From", "Other <other@example.com>"), to: []string{"to@example.com"}},
		{name: "sender with name", from: "a@xn--bcher-kva.example", change: func(m *mailer.EmailMessage) { m.FromEmail = "A <a@b\u00fccher.example>" }, to: []string{"to@example.com"}},
		{name: "return path", from: "bounce@example.com", change: withHeader("return-path", "<bounce@example.com>"), to: []string{"to@example.com"}},
		{name: "null sender", from: "", change: withHeader("Return-Path", "<>"), to: []string{"to@example.com"}},
		{name: "empty return path", from: "", change: withHeader("Return-Path", ""), to: []string{"to@example.com"}},
		{name: "UTF-8 recipient", from: "from@example.com", change: func(m *mailer.EmailMessage) { m.To = []string{"\u00fc@example.com"} }, to: []string{"\u00fc@example.com"}, utf8: true},
		{name: "UTF-8 reply", from: "from@example.com", change: func(m *mailer.EmailMessage) { m.ReplyTo = []string{"\u00fc@example.com"} }, to: []string{"to@example.com"}, utf8: true},
		{name: "UTF-8 in header", from: "from@example.com", change: withHeader("Sender", "\u00fc@example.com"), to: []string{"to@example.com"}, utf8: true},
		{name: "UTF-8 name", from: "from@example.com", change: func(m *mailer.EmailMessage) { m.ReplyTo = []string{"\u00fc <u@example.com>"} }, to: []string{"to@example.com"}},
		{name: "not all of them", from: "from@example.com", change: func(m *mailer.EmailMessage) {
			m.To = []string{"a@example.com", "B <b@Example.com>", "c@example.com"}
			*m = *m.WithRecipients([]string{"b@example.COM", "other@example.com"})
		}, to: []string{"b@Example.com"}, recipients: []string{"a@example.com", "B <b@Example.com>", "c@example.com"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(tt.change)
			e, err := m.Envelope()
			if err != nil {
				t.Fatal(err)
			}
			if e.From != tt.from || !slices.Equal(e.To, tt.to) || e.UTF8 != tt.utf8 {
				t.Errorf("got %+v, want from %q to %q, UTF8 %v", e, tt.from, tt.to, tt.utf8)
			}
			want := tt.recipients
			if want == nil {
				want = tt.to
			}
			if got := m.Recipients(); !slices.Equal(got, want) {
				t.Errorf("recipients: got %q, want %q", got, want)
			}
			rendered := render(t, m)
			for _, hidden := range []string{"Bcc:", "Return-Path:"} {
				if strings.Contains(strings.ToLower(rendered), "\n"+strings.ToLower(hidden)) {
					t.Errorf("%s is in the header", hidden)
				}
			}
		})
	}
}

func TestEnvelope_incomplete(t *testing.T) {
	m := message(func(m *mailer.EmailMessage) { m.FromEmail = "" })
	_, err := m.Envelope()
	wantBadInput(t, err, "from_email", false)
	if e, err := m.WithDefaults(mailer.Defaults{}).Envelope(); err != nil || e.From != "webmaster@localhost" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// What is long must not take quadratic time either.
func TestEnvelope_longAddress(t *testing.T) {
	for _, name := range []string{strings.Repeat(`""`, 1<<19), strings.Repeat("a ", 1<<19), strings.Repeat("(", 1<<18) + strings.Repeat(")", 1<<18), strings.Repeat(`a"b"`, 1<<18), strings.Repeat("\u00e9", 1<<18)} {
		m := message(func(m *mailer.EmailMessage) { m.To = []string{name + " <a@example.com>"} })
		if e, err := m.Envelope(); err != nil || len(e.To) != 1 || e.To[0] != "a@example.com" {
			t.Errorf("%.20q...: got %v, %v", name, e.To, err)
		}
		if err := m.Validate(); err != nil && !mailer.IsBadInput(err) {
			t.Errorf("%.20q...: got %v", name, err)
		}
	}
}

// A list of many recipients must not take quadratic time, and the caller's lists
// stay as they were.
func TestRecipients_many(t *testing.T) {
	m := message()
	m.To = []string{"", "a@example.com"}
	for i := range 50_000 {
		m.Bcc = append(m.Bcc, fmt.Sprintf("r%d@example.com", i))
	}
	if n := len(m.Recipients()); n != 50_001 {
		t.Errorf("got %d recipients", n)
	}
	if e, err := m.Envelope(); err != nil || len(e.To) != 50_001 {
		t.Errorf("got %d recipients, %v", len(e.To), err)
	}
	if m.To[0] != "" || m.To[1] != "a@example.com" {
		t.Errorf("To was changed: %q", m.To)
	}
}
