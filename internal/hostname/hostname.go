// Package hostname reports whether a text can name a host: in a setting, in EHLO, or in
// Message-ID. It is the one place that knows what a label and an address literal are.
package hostname

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Most bytes of a name as SMTP takes it (RFC 5321, 4.5.3.1.2), of a name in the DNS, where
// each label has its length beside it, and of one label (RFC 1035, 2.3.4).
const (
	maxSMTP  = 255
	maxDNS   = 253
	maxLabel = 63
)

// IsASCII reports whether name is a host name as it may stand in EHLO (RFC 5321, 4.1.2):
// letters, digits and hyphens between dots. Underscores pass too, because some machines have
// them in their names.
func IsASCII(name string) bool {
	return len(name) <= maxSMTP && eachLabel(name, IsLDH)
}

// IsUnicode reports whether name is a host name as people write it: what IsASCII takes, and
// letters outside ASCII, which are punycode on the wire (RFC 5890).
func IsUnicode(name string) bool {
	return len(name) <= maxDNS && utf8.ValidString(name) && eachLabel(name, isUnicodeRune)
}

func eachLabel(name string, allowed func(rune) bool) bool {
	for label := range strings.SplitSeq(name, ".") {
		bad := func(r rune) bool { return !allowed(r) }
		if label == "" || len(label) > maxLabel || strings.Trim(label, "-") != label || strings.ContainsFunc(label, bad) {
			return false
		}
	}
	return true
}

// IsLDH reports whether r is an ASCII letter, a digit or a hyphen, of which labels are made (RFC
// 5890, 2.3.1), or an underscore.
func IsLDH(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

func isUnicodeRune(r rune) bool {
	return r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r)
}

// IsAddressLiteral reports whether s is an IP address as it stands in place of a name:
// [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321, 4.1.3).
func IsAddressLiteral(s string) bool {
	inner, opened := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !opened || !closed {
		return false
	}
	inner, six := strings.CutPrefix(inner, "IPv6:")
	ip, err := netip.ParseAddr(inner)
	return err == nil && ip.Zone() == "" && six == ip.Is6()
}

// IsRemote reports whether host, a name or an IP address, is likely to be another machine.
// It is a guess: any name can lead to this machine, and only connecting shows it.
func IsRemote(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return !addr.IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

// private are the ends of names that no DNS but one's own has: special-use names (RFC 6761, 6762, 8375), ICANN's
// .internal, and what systems and routers make up.
var private = []string{
	"localhost", "local", "home.arpa", "internal", "invalid", "test", "example", "localdomain", "lan", "home", "corp",
}

// IsPrivate reports whether name, a name as IsUnicode takes it, means nothing to other networks: it has no domain, or one that
// the public DNS does not have. A relay elsewhere refuses what comes from such a name, if it checks names at all.
func IsPrivate(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.Contains(name, ".") {
		return true
	}
	return slices.ContainsFunc(private, func(end string) bool { return strings.HasSuffix(name, "."+end) })
}
