package mailer

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// mailbox is one address of the header or the envelope (RFC 5322, 3.4).
type mailbox struct {
	name string // the display name as a reader sees it
	addr string // local part and domain, as SMTP and the header take it

	// verbatim is what the header shows instead of name and addr, where the author's
	// spelling holds more than these two: comments, or a name that is encoded already.
	verbatim string
}

// Octets that SMTP allows (RFC 5321, 4.5.3.1). A path is an address in angle brackets.
const (
	maxLocal  = 64
	maxDomain = 255
	maxPath   = 256
)

// parseMailbox reads one address, with or without a display name. What is wrong
// with it is returned as a reason, empty if nothing is.
//
// It takes more than the grammar does where people write more and mean one
// thing only: dots and brackets in a name without quotes, dots anywhere in a local
// part, UTF-8 in both, no domain at all. It refuses what can be read in two ways.
func parseMailbox(s string) (m mailbox, reason string) {
	s = strings.Trim(s, " \t")
	if !strings.ContainsAny(s, " \t\"(),<>:;\\") { // a bare address, as most are
		m.addr, reason = parseSpec(s)
		return m, reason
	}
	p := addressParser{rest: s}
	p.mailbox()
	switch {
	case p.reason != "":
		return mailbox{}, p.reason
	case strings.HasPrefix(p.rest, ","):
		return mailbox{}, "holds more than one address"
	case p.rest != "":
		return mailbox{}, reasonAddress
	}
	return p.finish(s)
}

// splitAddresses cuts an address list at its commas. Empty entries are dropped.
func splitAddresses(list string) (entries []string, reason string) {
	for list != "" {
		p := addressParser{rest: list}
		p.mailbox()
		if p.reason != "" {
			return nil, p.reason
		}
		if p.rest != "" && p.rest[0] != ',' {
			return nil, reasonAddress
		}
		if entry := strings.Trim(list[:len(list)-len(p.rest)], " \t"); entry != "" {
			entries = append(entries, entry)
		}
		list = strings.TrimPrefix(p.rest, ",")
	}
	return entries, ""
}

// parseAddresses reads an address list.
func parseAddresses(list string) (boxes []mailbox, reason string) {
	entries, reason := splitAddresses(list)
	for _, entry := range entries {
		if reason != "" {
			return nil, reason
		}
		var box mailbox
		box, reason = parseMailbox(entry)
		boxes = append(boxes, box)
	}
	return boxes, reason
}

const reasonAddress = "is not an address"

// addressParser reads one mailbox up to the end or to the comma after it.
type addressParser struct {
	rest   string
	reason string

	words   []string // of the name, or of an address without angle brackets
	quoted  bool     // one of the words was quoted
	gaps    bool     // there was white space or a comment between two words
	comment bool
	angle   bool   // there were angle brackets
	spec    string // what they hold
}

func (p *addressParser) mailbox() {
	gap := false
	for p.reason == "" && p.rest != "" && p.rest[0] != ',' {
		switch c := p.rest[0]; {
		case c == ' ' || c == '\t':
			p.rest = p.rest[1:]
			gap = true
			continue
		case c == '(':
			p.skipComment()
			gap = true
			continue
		case p.angle:
			p.reason = reasonAddress // nothing but comments may follow the brackets
		case c == '<':
			p.angleSpec()
		case c == '"':
			p.word(p.quotedString(), gap)
			p.quoted = true
		case strings.IndexByte(`>):;\`, c) >= 0:
			p.reason = reasonAddress
		default:
			p.word(p.atom(), gap)
		}
		gap = false
	}
}

// word adds a piece of text: to the last word, unless there was a gap between them.
func (p *addressParser) word(s string, gap bool) {
	if last := len(p.words) - 1; last >= 0 && !gap {
		p.words[last] += s
		return
	}
	p.gaps = p.gaps || len(p.words) > 0
	p.words = append(p.words, s)
}

func (p *addressParser) atom() string {
	n := strings.IndexAny(p.rest, " \t\"(),<>:;\\")
	// An address literal such as [IPv6:::1] has colons.
	if i := strings.LastIndexByte(p.rest[:max(n, 0)], '['); i >= 0 && p.rest[n] == ':' && !p.angle {
		if end := strings.IndexByte(p.rest, ']'); end > n && !strings.ContainsAny(p.rest[i:end], " \t\"(),<>;\\") {
			n = end + 1
		}
	}
	if n < 0 {
		n = len(p.rest)
	}
	s := p.rest[:n]
	p.rest = p.rest[n:]
	return s
}

// quotedString returns a quoted string with its quotes.
func (p *addressParser) quotedString() string {
	end := quotedEnd(p.rest)
	if end < 0 {
		p.reason = "has a quote that is not closed"
		return ""
	}
	s := p.rest[:end]
	p.rest = p.rest[end:]
	return s
}

// quotedEnd returns where the quoted string that s begins with ends, or -1.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// skipComment skips a comment, which may hold others (RFC 5322, 3.2.2).
func (p *addressParser) skipComment() {
	depth := 0
	for i := 0; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.rest = p.rest[i+1:]
				p.comment = true
				return
			}
		}
	}
	p.reason = "has a comment that is not closed"
}

// angleSpec reads <local@domain>.
func (p *addressParser) angleSpec() {
	s := p.rest[1:]
	i := 0
	if strings.HasPrefix(s, `"`) {
		if i = quotedEnd(s); i < 0 {
			p.reason = "has a quote that is not closed"
			return
		}
	}
	end := strings.IndexByte(s[i:], '>')
	if end < 0 {
		p.reason = "has an angle bracket that is not closed"
		return
	}
	p.angle = true
	p.spec = s[:i+end]
	p.rest = s[i+end+1:]
}

// finish makes the mailbox of what was read from s.
func (p *addressParser) finish(s string) (m mailbox, reason string) {
	spec := p.spec
	if !p.angle {
		if len(p.words) == 0 {
			return m, "is empty"
		}
		if p.gaps {
			return m, reasonAddress
		}
		spec = p.words[0]
	} else if m.name, reason = p.displayName(); reason != "" {
		return m, reason
	}
	if m.addr, reason = parseSpec(spec); reason != "" {
		return m, reason
	}
	if isASCII(s) && (p.comment || strings.Contains(m.name, "=?") && !p.quoted) {
		m.verbatim = s
	}
	return m, ""
}

// displayName joins the words of the name and takes their quotes off.
func (p *addressParser) displayName() (name, reason string) {
	var b strings.Builder
	for i, w := range p.words {
		if i > 0 {
			b.WriteByte(' ')
		}
		for w != "" {
			if w[0] == '"' {
				end := quotedEnd(w)
				b.WriteString(unquote(w[:end]))
				w = w[end:]
				continue
			}
			n := strings.IndexByte(w, '"')
			if n < 0 {
				n = len(w)
			}
			// A name that looks like another address deceives its reader, and
			// parsers differ on which of the two is meant.
			if strings.IndexByte(w[:n], '@') >= 0 {
				return "", "has an @ in a name without quotes"
			}
			b.WriteString(w[:n])
			w = w[n:]
		}
	}
	return b.String(), ""
}

// unquote returns what a quoted string, with its quotes, says.
func unquote(s string) string {
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// parseSpec reads local@domain, or a local part alone as local mail has it.
func parseSpec(spec string) (addr, reason string) {
	local, domain, hasDomain := spec, "", false
	if strings.HasPrefix(spec, `"`) {
		end := quotedEnd(spec)
		if end < 0 || end < len(spec) && spec[end] != '@' {
			return "", reasonAddress
		}
		local = unquote(spec[:end])
		domain, hasDomain = strings.CutPrefix(spec[end:], "@")
		if !isDotAtom(local) {
			local = quote(local)
		}
	} else {
		local, domain, hasDomain = strings.Cut(spec, "@")
		if !isLocal(local) {
			return "", reasonAddress
		}
	}
	if hasDomain {
		if domain, reason = asciiDomain(domain); reason != "" {
			return "", reason
		}
		addr = local + "@" + domain
	} else {
		addr = local
	}
	switch {
	case len(local) > maxLocal:
		return "", "has a local part of more than 64 octets"
	case len(domain) > maxDomain, len(addr) > maxPath-len("<>"):
		return "", "is longer than SMTP allows"
	}
	return addr, ""
}

// isLocal says whether s can be a local part without quotes. Dots may be anywhere:
// there are providers that gave out such addresses.
func isLocal(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < utf8.RuneSelf && c != '.' && !isAtext(c) {
			return false
		}
	}
	return s != "" && !hasUnicodeSpace(s)
}

func isDotAtom(s string) bool {
	return isLocal(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// hasUnicodeSpace finds line and word separators beyond ASCII, which have no
// place in an address and which some programs take for line ends.
func hasUnicodeSpace(s string) bool {
	return strings.ContainsAny(s, "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000")
}

// asciiDomain returns a domain as SMTP takes it: in punycode if it is not ASCII,
// unchanged if it is.
func asciiDomain(domain string) (ascii, reason string) {
	if strings.HasPrefix(domain, "[") {
		if !isDomainLiteral(domain) {
			return "", "has a bad address literal"
		}
		return domain, ""
	}
	if !isASCII(domain) {
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

// notLDH is true for what is neither letter, digit, hyphen nor underscore.
func notLDH(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}

// isDomainLiteral says whether s is an address literal such as [192.0.2.1] or
// [IPv6:2001:db8::1] (RFC 5321, 4.1.3).
func isDomainLiteral(s string) bool {
	inner, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	return ok && inner != "" && !strings.ContainsFunc(inner, func(r rune) bool {
		return notLDH(r) && r != '.' && r != ':'
	})
}

// isAtext says whether c may stand in an atom (RFC 5322, 3.2.3).
func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// quote makes a quoted string (RFC 5322, 3.2.4).
func quote(s string) string {
	return string(appendQuoted(nil, s))
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}
