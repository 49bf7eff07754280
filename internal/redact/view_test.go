package redact

import "testing"

func TestView_Text(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, give, masked, full string }{
		{"no address", "451 4.7.1 Try later", "451 4.7.1 Try later", "451 4.7.1 Try later"},
		{"a reply", "550 <bob@example.com>: unknown", "550 <b***@example.com>: unknown", "550 <bob@example.com>: unknown"},
		{"two", "a@x.example,bb@y.example", "a***@x.example,b***@y.example", "a@x.example,bb@y.example"},
		{"quoted", `"bob smith"@example.com`, "b***@example.com", `"bob smith"@example.com`},
		{"a literal", "bob@[192.0.2.1] is away", "b***@[192.0.2.1] is away", "bob@[192.0.2.1] is away"},
		{"beyond ASCII", "jürgen@müller.example", "j***@müller.example", "jürgen@müller.example"},
		{"in quotes", `"bob@example.com"`, `"b***@example.com"`, `"bob@example.com"`},
		{"at the end of a sentence", "no bob@example.com.", "no b***@example.com.", "no bob@example.com."},
		{"lines", "a\r\nb\tc", "a  b c", "a  b c"},
		{"a terminal's command", "\x1b[2Jx", " [2Jx", " [2Jx"},
		{"the other direction", "a\u202egnp.exe", "agnp.exe", "agnp.exe"},
		{"not UTF-8", "a\xffb", "a\ufffdb", "a\ufffdb"},
		{"markup stays text", "<script>alert(1)</script>", "<script>alert(1)</script>", "<script>alert(1)</script>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (View{}).Text(tt.give, 100); got != tt.masked {
				t.Errorf("masked: %q, want %q", got, tt.masked)
			}
			if got := (View{Addresses: true}).Text(tt.give, 100); got != tt.full {
				t.Errorf("in full: %q, want %q", got, tt.full)
			}
		})
	}
}

func TestView_Address(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, give, want string }{
		{"bare", "ann@example.com", "a***@example.com"},
		{"with a name", "Ann Example <ann@example.com>", "a***@example.com"},
		{"with an address for a name", `"eve@evil.example" <ann@example.com>`, "a***@example.com"},
		{"local", "root", "r***"},
		{"nothing", "", "****"},
		{"not one", "<<<", "****"},
		{"blanks", "  ann@example.com ", "a***@example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (View{}).Address(tt.give, 100); got != tt.want {
				t.Errorf("Address(%q) = %q, want %q", tt.give, got, tt.want)
			}
		})
	}
	if got := (View{Addresses: true}).Address("Ann <ann@example.com>", 100); got != "Ann <ann@example.com>" {
		t.Errorf("in full: %q", got)
	}
}

func TestView_Mailbox(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ give, masked, full string }{
		{"ann@example.com", "a***@example.com", "ann@example.com"},
		{"Ann <ann@example.com>", "a***@example.com", "ann@example.com"},
		{"Ann <ann@example.com\x1b[2J>", "a***@example.com [2J", "ann@example.com [2J"},
	} {
		if got := (View{}).Mailbox(tt.give); got != tt.masked {
			t.Errorf("Mailbox(%q) = %q, want %q", tt.give, got, tt.masked)
		}
		if got := (View{Addresses: true}).Mailbox(tt.give); got != tt.full {
			t.Errorf("in full: Mailbox(%q) = %q, want %q", tt.give, got, tt.full)
		}
	}
}
