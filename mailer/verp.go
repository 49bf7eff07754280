package mailer

import "strings"

// maxLocal is how many bytes of a local part every server takes (RFC 5321, 4.5.3.1.1).
const maxLocal = 64

// verpSender returns the sender of the envelope for a message to one recipient: base with the recipient's address in its local part,
// bounces+ann=example.com@example.org. It is base itself where that cannot be: the local part would be longer than every
// server takes, or the recipient's is quoted, or it has no domain, or one in brackets.
func verpSender(base, recipient string) string {
	local, domain := cutAddress(base)
	to, at := cutAddress(recipient)
	whole := local + "+" + to + "=" + at
	if at == "" || strings.HasPrefix(to, `"`) || strings.HasPrefix(at, "[") || len(whole) > maxLocal {
		return base
	}
	return whole + "@" + domain
}

// VERPRecipient returns the recipient whom a report on a failed delivery is about, from the address that it came to: the sender
// of the envelope that EmailMessage.VERP, which is base, has made. ok is false if it is none of those, as for a recipient whose
// address did not fit: the report itself names that one (RFC 3464, 2.3.2).
func VERPRecipient(base, address string) (recipient string, ok bool) {
	local, domain := cutAddress(base)
	given, at := cutAddress(address)
	if domain == "" || !strings.EqualFold(at, domain) || len(given) <= len(local) || !strings.EqualFold(given[:len(local)], local) || given[len(local)] != '+' {
		return "", false
	}
	rest := given[len(local)+1:]
	i := strings.LastIndexByte(rest, '=')
	if i <= 0 || i == len(rest)-1 {
		return "", false
	}
	return rest[:i] + "@" + rest[i+1:], true
}

// cutAddress cuts an address at its last @. domain is empty if it has none.
func cutAddress(addr string) (local, domain string) {
	if i := strings.LastIndexByte(addr, '@'); i >= 0 {
		return addr[:i], addr[i+1:]
	}
	return addr, ""
}
