package headerfield

import (
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

const reasonURL = "holds what is not a URL such as <https://example.com/list>"

// escapeURL makes a URL (RFC 3986) of what an author writes, in which all may be that a browser
// shows: a host beyond ASCII goes into punycode, and anything else that cannot stand in a URL is
// percent-encoded. What is percent-encoded already stays so.
func escapeURL(s string) (url, reason string) {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || !isScheme(scheme) || rest == "" {
		return "", reasonURL
	}
	if !charset.IsASCII(rest) {
		switch end := strings.IndexAny(rest, "?#"); {
		case strings.HasPrefix(rest, "//"):
			rest, reason = hostInASCII(rest)
		case strings.EqualFold(scheme, "mailto"):
			if end < 0 {
				end = len(rest)
			}
			var to string
			to, reason = domainsInASCII(rest[:end])
			rest = to + rest[end:]
		}
		if reason != "" {
			return "", reason
		}
	}
	return scheme + ":" + percentEncode(rest), ""
}

// isScheme is RFC 3986, 3.1.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || (s[i] < '0' || s[i] > '9') && strings.IndexByte("+-.", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// hostInASCII is for what follows a scheme: //user@host:port/path.
func hostInASCII(rest string) (ascii, reason string) {
	end := len(rest)
	if i := strings.IndexAny(rest[2:], "/?#"); i >= 0 {
		end = 2 + i
	}
	start := max(2, strings.LastIndexByte(rest[:end], '@')+1)
	host := rest[start:end]
	port := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		host, port = host[:i], host[i:]
	}
	if charset.IsASCII(host) {
		return rest, ""
	}
	if host, reason = address.ASCIIDomain(host); reason != "" {
		return "", reason
	}
	return rest[:start] + host + port + rest[end:], ""
}

// domainsInASCII is for the addresses of a mailto (RFC 6068, 2).
func domainsInASCII(to string) (ascii, reason string) {
	all := strings.Split(to, ",")
	for i, addr := range all {
		at := strings.LastIndexByte(addr, '@')
		if at < 0 || charset.IsASCII(addr[at:]) {
			continue
		}
		domain, reason := address.ASCIIDomain(addr[at+1:])
		if reason != "" {
			return "", reason
		}
		all[i] = addr[:at+1] + domain
	}
	return strings.Join(all, ","), ""
}

// percentEncode encodes what cannot stand in a URL (RFC 3986, 2), and leaves alone what is encoded
// already.
func percentEncode(s string) string {
	const upperHex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		c := s[i]
		escaped := c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2])
		if !escaped && (c <= ' ' || c > '~' || strings.IndexByte("%\"<>\\^`{|}", c) >= 0) {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}
