package address

import (
	"strings"

	"golang.org/x/net/idna"

	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// ASCIIDomain returns a domain as SMTP takes it: in punycode if it is not ASCII,
// unchanged if it is.
func ASCIIDomain(domain string) (ascii, reason string) {
	if strings.HasPrefix(domain, "[") {
		if !isDomainLiteral(domain) {
			return "", "has a bad address literal"
		}
		return domain, ""
	}
	if !charset.IsASCII(domain) {
		// Transitional, which turns ß into ss, is IDNA 2003: what Django does.
		profile := idna.New(idna.MapForLookup(), idna.Transitional(true), idna.StrictDomainName(false))
		var err error
		if domain, err = profile.ToASCII(domain); err != nil {
			return "", "has a domain that cannot be written in punycode"
		}
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notLDH) {
			return "", "has a bad domain"
		}
	}
	return domain, ""
}

func notLDH(r rune) bool { return !hostname.IsLDH(r) }

// isDomainLiteral reports whether s is an address literal such as [192.0.2.1] or
// [IPv6:2001:db8::1] (RFC 5321, 4.1.3).
func isDomainLiteral(s string) bool {
	inner, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	return ok && inner != "" && !strings.ContainsFunc(inner, func(r rune) bool {
		return notLDH(r) && r != '.' && r != ':'
	})
}

// LowerDomain returns addr with its domain in lower case, for comparing addresses: letter case
// does not matter in a domain, and whether it matters in a local part only its own server knows
// (RFC 5321, 2.4).
func LowerDomain(addr string) string {
	at := strings.LastIndexByte(addr, '@') + 1
	return addr[:at] + strings.ToLower(addr[at:])
}
