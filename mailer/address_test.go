package mailer_test

import (
	"net/mail"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, address, want string }{
		{"Ann", "ann@example.com", "Ann <ann@example.com>"},
		{"Ann Doe", "ann@example.com", "Ann Doe <ann@example.com>"},
		{"Doe, Ann", "ann@example.com", `"Doe, Ann" <ann@example.com>`},
		{"J. R. Smith", "jr@example.com", `"J. R. Smith" <jr@example.com>`},
		{`Ann "the boss" Doe`, "ann@example.com", `"Ann \"the boss\" Doe" <ann@example.com>`},
		{`a\b`, "ann@example.com", `"a\\b" <ann@example.com>`},
		{"Shop (Berlin)", "shop@example.com", `"Shop (Berlin)" <shop@example.com>`},
		{"Jörg Müller", "joerg@example.com", "Jörg Müller <joerg@example.com>"},
		{"Müller, Jörg", "joerg@example.com", `"Müller, Jörg" <joerg@example.com>`},
		{"=?utf-8?q?x?=", "x@example.com", `"=?utf-8?q?x?=" <x@example.com>`},
		{"  Ann ", " ann@example.com ", "Ann <ann@example.com>"},
		{"", "ann@example.com", "ann@example.com"},
		{" ", "ann@example.com", "ann@example.com"},
	} {
		if got := mailer.Address(tt.name, tt.address); got != tt.want {
			t.Errorf("Address(%q, %q) = %s, want %s", tt.name, tt.address, got, tt.want)
		}
	}
}

// What could begin a line of its own is refused with the message.
func TestAddress_refused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, address string }{
		{"Ann\r\nBcc: x@example.com", "ann@example.com"}, {"Ann\x00", "ann@example.com"}, {"Ann", "ann@example.com\n"},
		{"Ann", "ann@example.com>, <bob@example.com"}, {"Ann", ""}, {"Ann", "a b@example.com"},
	} {
		m := message(func(m *mailer.EmailMessage) { m.To = []string{mailer.Address(tt.name, tt.address)} })
		if err := m.Validate(); err == nil || !mailer.IsBadInput(err) || !strings.Contains(err.Error(), "to[0]") {
			t.Errorf("%q: %v", m.To, err)
		}
	}
}

// FuzzAddress: whatever the name, one address arrives, with that name.
func FuzzAddress(f *testing.F) {
	for _, name := range []string{"Doe, Ann", `\"`, "a  b", "=?utf-8?q?=41?=", "ä, \"ö\"", "<x@example.com>", "group: a;", "(c)", "'quoted'", "a=?b?="} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m := message(func(m *mailer.EmailMessage) { m.To = []string{mailer.Address(name, "ann@example.com")} })
		if m.Validate() != nil {
			return // a control character, or no UTF-8
		}
		read, err := mail.ReadMessage(strings.NewReader(render(t, m)))
		if err != nil {
			t.Fatal(err)
		}
		to, err := read.Header.AddressList("To")
		if err != nil || len(to) != 1 || to[0].Address != "ann@example.com" || to[0].Name != strings.Trim(name, " \t") {
			t.Errorf("%q arrives as %q: %v", name, read.Header.Get("To"), err)
		}
	})
}
