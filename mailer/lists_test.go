package mailer_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/mail"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestListUnsubscribe(t *testing.T) {
	const link = "https://example.com/u?list=7&who=Zm9v"
	long := "https://example.com/u/" + strings.Repeat("x", 300)
	for _, tt := range []struct {
		name       string
		list       mailer.ListUnsubscribe
		field      string
		post, bulk string
	}{
		{"URL", mailer.ListUnsubscribe{URL: "http://example.com/u"}, "<http://example.com/u>", "", "bulk"},
		{"one click", mailer.ListUnsubscribe{URL: link, OneClick: true}, "<" + link + ">", "List-Unsubscribe=One-Click", "bulk"},
		{"both", mailer.ListUnsubscribe{URL: link, Mailto: "leave@example.com", OneClick: true}, "<" + link + ">, <mailto:leave@example.com>", "List-Unsubscribe=One-Click", "bulk"},
		{"address with a name", mailer.ListUnsubscribe{Mailto: "List <leave+7@bücher.example>"}, "<mailto:leave+7@xn--bcher-kva.example>", "", "bulk"},
		{"mailto URL", mailer.ListUnsubscribe{Mailto: "mailto:leave@example.com?subject=leave%20list"}, "<mailto:leave@example.com?subject=leave%20list>", "", "bulk"},
		{"beyond ASCII", mailer.ListUnsubscribe{URL: "https://bücher.example/ü"}, "<https://xn--bcher-kva.example/%C3%BC>", "", "bulk"},
		{"long", mailer.ListUnsubscribe{URL: long, Mailto: "leave@example.com"}, "<" + long + ">, <mailto:leave@example.com>", "", "bulk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := message(func(m *mailer.EmailMessage) { m.ListUnsubscribe = tt.list })
			before := maps.Clone(m.Headers)
			raw := render(t, m)
			parsed, err := mail.ReadMessage(strings.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"List-Unsubscribe": tt.field, "List-Unsubscribe-Post": tt.post, "Precedence": tt.bulk} {
				if got := parsed.Header.Get(name); got != want || len(parsed.Header[name]) > 1 {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			// A queue has no more than the fields: a worker of any version sends the same bytes.
			handedOver := m.WithDefaults(mailer.Defaults{})
			if handedOver.ListUnsubscribe != (mailer.ListUnsubscribe{}) || !maps.Equal(m.Headers, before) || m.ListUnsubscribe != tt.list {
				t.Errorf("handed over as %+v; the message itself is %+v", handedOver, m)
			}
			if again := render(t, handedOver); again != raw {
				t.Errorf("handed over it is\n%s, want\n%s", again, raw)
			}
		})
	}
}

func TestListUnsubscribe_Bad(t *testing.T) {
	one := func(link string) mailer.ListUnsubscribe { return mailer.ListUnsubscribe{URL: link, OneClick: true} }
	to := func(link string) mailer.ListUnsubscribe { return mailer.ListUnsubscribe{Mailto: link} }
	for _, tt := range []struct {
		name   string
		change func(m *mailer.EmailMessage)
		field  string
		reason string
	}{
		{"one click without TLS", unsubscribe(one("http://example.com/u")), "list_unsubscribe.url", "has to begin with https://"},
		{"one click without a URL", unsubscribe(mailer.ListUnsubscribe{OneClick: true, Mailto: "a@b.c"}), "list_unsubscribe.url", "has to begin with https://"},
		{"no scheme", unsubscribe(mailer.ListUnsubscribe{URL: "example.com/u"}), "list_unsubscribe.url", "is not a URL"},
		{"script", unsubscribe(mailer.ListUnsubscribe{URL: "javascript:alert(1)"}), "list_unsubscribe.url", "is not a URL"},
		{"no host", unsubscribe(mailer.ListUnsubscribe{URL: "https:///u"}), "list_unsubscribe.url", ""},
		{"line end", unsubscribe(one("https://example.com/\r\nBcc: eve@example.com")), "list_unsubscribe.url", "control character CR"},
		{"line end in the address", unsubscribe(to("a@example.com\nBcc: eve@example.com")), "list_unsubscribe.mailto", "control character LF"},
		{"line end in the link", unsubscribe(to("mailto:a@example.com?\r\nBcc: eve@example.com")), "list_unsubscribe.mailto", "control character CR"},
		{"bracket", unsubscribe(one("https://example.com/>, <https://eve.example/")), "list_unsubscribe.url", "angle bracket"},
		{"blank", unsubscribe(one("https://example.com/a b")), "list_unsubscribe.url", "blank"},
		{"too long", unsubscribe(one("https://example.com/" + strings.Repeat("x", 900))), "list_unsubscribe.url", "more than 900 bytes"},
		{"too long once encoded", unsubscribe(one("https://example.com/" + strings.Repeat("ü", 400))), "list_unsubscribe.url", "998"},
		{"no address", unsubscribe(to("leave")), "list_unsubscribe.mailto", "is not an address"},
		{"no address in the link", unsubscribe(to("mailto:?subject=a@b")), "list_unsubscribe.mailto", "names no address"},
		{"two addresses", unsubscribe(to("a@b.c, d@e.f")), "list_unsubscribe.mailto", ""},
		{"the field too", func(m *mailer.EmailMessage) {
			m.ListUnsubscribe, m.Headers["list-unsubscribe"] = one("https://example.com"), "<https://example.org>"
		}, "list_unsubscribe", "headers[list-unsubscribe]"},
		{"raw", func(m *mailer.EmailMessage) {
			*m = mailer.EmailMessage{Raw: []byte("Subject: x\r\n\r\ny\r\n"), FromEmail: "a@b.c", To: m.To, ListUnsubscribe: one("https://example.com")}
		}, "list_unsubscribe", "together with raw"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := message(tt.change)
			for _, m := range []*mailer.EmailMessage{m, m.WithDefaults(mailer.Defaults{})} {
				field, text := badField(t, m.Validate())
				if field != tt.field || !strings.Contains(text, tt.reason) {
					t.Errorf("got %s: %s, want %s: %s", field, text, tt.field, tt.reason)
				}
			}
		})
	}
}

func unsubscribe(l mailer.ListUnsubscribe) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.ListUnsubscribe = l }
}

// badField is the field that an error names, and its reason.
func badField(t *testing.T, err error) (field, reason string) {
	t.Helper()
	var header *mailer.BadHeaderError
	var invalid *mailer.InvalidMessageError
	switch {
	case errors.As(err, &header):
		return header.Field, header.Reason
	case errors.As(err, &invalid):
		return invalid.Field, invalid.Reason
	}
	t.Fatalf("%v names no field", err)
	return "", ""
}

// The author's own Precedence stays.
func TestListUnsubscribe_precedence(t *testing.T) {
	m := message(unsubscribe(mailer.ListUnsubscribe{URL: "https://example.com/"}))
	m.Headers["precedence"] = "list"
	if raw := render(t, m); strings.Count(strings.ToLower(raw), "\nprecedence: ") != 1 || !strings.Contains(raw, "precedence: list\r\n") {
		t.Error(raw)
	}
}

func TestVERP(t *testing.T) {
	for _, tt := range []struct{ name, base, to, want string }{
		{"recipient", "bounces@example.org", "Ann <ann@example.com>", "bounces+ann=example.com@example.org"},
		{"plus and equals", "bounces@example.org", "ann+x=y@example.com", "bounces+ann+x=y=example.com@example.org"},
		{"base with a plus", "b+7@example.org", "ann@example.com", "b+7+ann=example.com@example.org"},
		{"domain beyond ASCII", "bounces@bücher.example", "ann@müller.example", "bounces+ann=xn--mller-kva.example@xn--bcher-kva.example"},
		{"64 bytes", "bounces@example.org", strings.Repeat("a", 44) + "@example.com", "bounces+" + strings.Repeat("a", 44) + "=example.com@example.org"},
		{"65 bytes", "bounces@example.org", strings.Repeat("a", 45) + "@example.com", "bounces@example.org"},
		{"quoted", "bounces@example.org", `"ann b"@example.com`, "bounces@example.org"},
		{"no domain", "bounces@example.org", "root", "bounces@example.org"},
		{"address literal", "bounces@example.org", "ann@[192.0.2.1]", "bounces@example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := message(func(m *mailer.EmailMessage) { m.To, m.Cc, m.Bcc, m.VERP = []string{tt.to}, nil, nil, tt.base })
			handedOver := m.WithDefaults(mailer.Defaults{})
			for _, m := range []*mailer.EmailMessage{m, handedOver} {
				e, err := m.Envelope()
				if err != nil || e.From != tt.want {
					t.Errorf("sender %q, %v, want %q", e.From, err, tt.want)
				}
				if raw := render(t, m); strings.Contains(raw, "bounces") || strings.Contains(raw, "Return-Path") {
					t.Errorf("the sender of the envelope is in the header:\n%s", raw)
				}
			}
			if handedOver.VERP != "" {
				t.Error("the queue would have to know VERP")
			}
			sender, _ := m.Envelope()
			base, _ := (&mailer.EmailMessage{FromEmail: tt.base}).Envelope()
			to, ok := mailer.VERPRecipient(base.From, strings.ToUpper(sender.From[:1])+sender.From[1:])
			if want := tt.want != base.From; ok != want || ok && to != sender.To[0] {
				t.Errorf("read back as %q, %v, want %q", to, ok, sender.To[0])
			}
		})
	}
	for _, address := range []string{"bounces@example.org", "bounces+@example.org", "bounces+ann@example.org", "bounces+=example.com@example.org", "bounces+ann=@example.org", "bouncesann=example.com@example.org", "", "bounces+ann=example.com@example.net"} {
		if to, ok := mailer.VERPRecipient("bounces@example.org", address); ok {
			t.Errorf("%s is taken for a report on %s", address, to)
		}
	}
}

func TestVERP_Bad(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(m *mailer.EmailMessage)
		reason string
	}{
		{"several recipients", func(m *mailer.EmailMessage) { m.VERP, m.Cc = "b@example.org", []string{"c@example.com"} }, "takes a message for each recipient, and this one has 2"},
		{"a blind copy", func(m *mailer.EmailMessage) { m.VERP, m.Headers["Bcc"] = "b@example.org", "c@example.com" }, "and this one has 2"},
		{"Return-Path", func(m *mailer.EmailMessage) { m.VERP, m.Headers["return-path"] = "b@example.org", "<c@example.com>" }, "headers[return-path]"},
		{"no domain", func(m *mailer.EmailMessage) { m.VERP = "bounces" }, "with a domain"},
		{"quoted", func(m *mailer.EmailMessage) { m.VERP = `"b c"@example.org` }, "without quotes"},
		{"no room", func(m *mailer.EmailMessage) { m.VERP = strings.Repeat("b", 64) + "@example.org" }, "leaves no room"},
		{"line end", func(m *mailer.EmailMessage) { m.VERP = "b@example.org\r\nRCPT TO:<eve@example.com>" }, "control character CR"},
		{"no address", func(m *mailer.EmailMessage) { m.VERP = "b@@" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := message(func(m *mailer.EmailMessage) { m.To, m.Cc, m.Bcc = []string{"ann@example.com"}, nil, nil; tt.change(m) })
			for _, m := range []*mailer.EmailMessage{m, m.WithDefaults(mailer.Defaults{})} {
				if field, text := badField(t, m.Validate()); field != "verp" || !strings.Contains(text, tt.reason) {
					t.Errorf("got %s: %s, want verp: %s", field, text, tt.reason)
				}
			}
		})
	}
}

// A finished message has its bytes, and the sender of its envelope.
func TestVERP_raw(t *testing.T) {
	m := &mailer.EmailMessage{Raw: []byte("From: a@example.com\r\nMessage-ID: <x@y>\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\n\r\ny\r\n"), FromEmail: "a@example.com", To: []string{"ann@example.com"}, VERP: "b@example.org"}
	e, err := m.WithDefaults(mailer.Defaults{}).Envelope()
	if err != nil || e.From != "b+ann=example.com@example.org" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := render(t, m.WithDefaults(mailer.Defaults{})); got != string(m.Raw) {
		t.Errorf("it is sent as\n%s", got)
	}
}

func TestEmailMessage_ListJSON(t *testing.T) {
	const text = `"list_unsubscribe":{"url":"https://example.com/u","mailto":"a@b.c","one_click":true},"verp":"b@example.org"`
	var m mailer.EmailMessage
	if err := json.Unmarshal([]byte("{"+text+"}"), &m); err != nil {
		t.Fatal(err)
	}
	if want := (mailer.ListUnsubscribe{URL: "https://example.com/u", Mailto: "a@b.c", OneClick: true}); m.ListUnsubscribe != want || m.VERP != "b@example.org" {
		t.Errorf("%+v, %s", m.ListUnsubscribe, m.VERP)
	}
	if data, err := json.Marshal(m); err != nil || !strings.Contains(string(data), ","+text+",") {
		t.Errorf("%s, %v", data, err)
	}
	if data, err := json.Marshal(mailer.EmailMessage{}); err != nil || strings.Contains(string(data), "verp") || strings.Contains(string(data), "list_") {
		t.Errorf("%s, %v: a worker of an earlier version could not read it", data, err)
	}
	for give, want := range map[string]string{
		`{"list_unsubscribe":"https://x"}`:             "list_unsubscribe",
		`{"list_unsubscribe":{"url":1}}`:               "list_unsubscribe.url",
		`{"list_unsubscribe":{"one_click":"yes"}}`:     "list_unsubscribe.one_click",
		`{"list_unsubscribe":{"oneclick":true}}`:       "list_unsubscribe.oneclick",
		`{"verp":true}`:                                "verp",
		"{\"verp\":\"\xff\"}":                          "verp",
		"{\"list_unsubscribe\":{\"mailto\":\"\xff\"}}": "list_unsubscribe.mailto",
	} {
		if field, _ := badField(t, json.Unmarshal([]byte(give), &m)); field != want {
			t.Errorf("%s: %s is named, want %s", give, field, want)
		}
	}
	if err := json.Unmarshal([]byte(`{"list_unsubscribe":null,"verp":null}`), &m); err != nil {
		t.Error(err)
	}
}

// FuzzLists: whatever the links and the address of reports hold, nothing else comes into header and envelope.
func FuzzLists(f *testing.F) {
	f.Add("https://example.com/u", "a@example.com", "b@example.org", "ann@example.com", true)
	f.Add("https://example.com/\r\nX: y", "mailto:a@b?subject=\n", "b\r\n@c", "\"a\\\"b\"@c", false)
	f.Add("https://ü.example/<>", "ä <ü@bücher.example>", "ü@c", strings.Repeat("a", 70)+"@b", true)
	f.Fuzz(func(t *testing.T, link, mailto, verp, to string, oneClick bool) {
		m := message(func(m *mailer.EmailMessage) {
			m.To, m.Cc, m.Bcc = []string{to}, nil, nil
			m.VERP, m.ListUnsubscribe = verp, mailer.ListUnsubscribe{URL: link, Mailto: mailto, OneClick: oneClick}
		})
		if err := m.Validate(); err != nil {
			if !mailer.IsBadInput(err) {
				t.Fatalf("not bad input: %v", err)
			}
			if m.WithDefaults(mailer.Defaults{}).Validate() == nil {
				t.Fatalf("%v, and not when it is handed over", err)
			}
			return
		}
		raw := render(t, m)
		if again := render(t, m.WithDefaults(mailer.Defaults{})); again != raw {
			t.Fatalf("handed over it is\n%s, want\n%s", again, raw)
		}
		parsed, err := mail.ReadMessage(strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		bare := m.WithDefaults(mailer.Defaults{})
		bare.Headers = message().Headers
		plain, err := mail.ReadMessage(strings.NewReader(render(t, bare)))
		if err != nil {
			t.Fatal(err)
		}
		for name := range parsed.Header {
			switch name {
			case "List-Unsubscribe", "List-Unsubscribe-Post", "Precedence":
			default:
				if len(parsed.Header[name]) != len(plain.Header[name]) {
					t.Fatalf("the field %s came in:\n%s", name, raw)
				}
			}
		}
		e, err := m.Envelope()
		if err != nil {
			t.Fatal(err)
		}
		if local, _, _ := strings.Cut(e.From, "@"); strings.ContainsAny(e.From, " \r\n<>") && !strings.HasPrefix(local, `"`) {
			t.Fatalf("sender %q", e.From)
		}
	})
}
