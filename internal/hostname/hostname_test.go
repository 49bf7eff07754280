package hostname

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("abcdefghi.", 25) // 250 bytes with the last dot
	for _, tt := range []struct {
		name           string
		ascii, unicode bool
	}{
		{"mail.example.com", true, true},
		{"MAIL-1", true, true},
		{"my_host.lan", true, true},
		{"127.0.0.1", true, true},
		{"bücher.example", false, true},
		{"पोस्ट.example", false, true},
		{long + "abc", true, true},
		{long + "abcde", true, false},
		{long + "abcdef", false, false},
		{strings.Repeat("a", 63), true, true},
		{strings.Repeat("a", 64), false, false},
		{"", false, false},
		{"a..b", false, false},
		{"a.", false, false},
		{"-a.b", false, false},
		{"a-.b", false, false},
		{"a b", false, false},
		{"a\nb", false, false},
		{"a:25", false, false},
		{"[192.0.2.1]", false, false},
		{"b\xffcher", false, false},
	} {
		if got := IsASCII(tt.name); got != tt.ascii {
			t.Errorf("IsASCII(%q) = %v", tt.name, got)
		}
		if got := IsUnicode(tt.name); got != tt.unicode {
			t.Errorf("IsUnicode(%q) = %v", tt.name, got)
		}
	}
}

func TestIsAddressLiteral(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"[192.0.2.1]": true, "[IPv6:2001:db8::1]": true, "[IPv6:::ffff:192.0.2.1]": true, "[2001:db8::1]": false, "[IPv6:192.0.2.1]": false,
		"192.0.2.1": false, "[192.0.2.1": false, "192.0.2.1]": false, "[x]": false, "[]": false, "[IPv6:fe80::1%eth0]": false,
	} {
		if got := IsAddressLiteral(s); got != want {
			t.Errorf("IsAddressLiteral(%q) = %v", s, got)
		}
	}
}

func TestIsRemote(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": false, "app.localhost": false, "127.0.0.1": false, "127.1.2.3": false, "::1": false,
		"mail.example.com": true, "192.0.2.1": true, "0.0.0.0": true, "localhost.example.com": true,
	} {
		if got := IsRemote(host); got != want {
			t.Errorf("IsRemote(%q) = %v", host, got)
		}
	}
}

func TestIsPrivate(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"vm": true, "localhost": true, "vm.localdomain": true, "printer.local": true, "A.LAN": true, "db.home.arpa": true, "app.internal": true,
		"shop.example": true, "vm.local.": true, "localhost.localdomain": true,
		"mail.example.com": false, "example.org.": false, "local.example.com": false, "internal.de": false, "mylan.net": false,
	} {
		if got := IsPrivate(name); got != want {
			t.Errorf("IsPrivate(%q) = %v", name, got)
		}
	}
}
