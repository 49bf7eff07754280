package address

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Mailbox is one address of the header or the envelope (RFC 5322, 3.4).
type Mailbox struct {
	Name string // the display name as a reader sees it
	Addr string // local part and domain, as SMTP and the header take it

	// Verbatim is what the header shows instead of Name and Addr, where the author's
	// spelling holds more than these two: comments, or a name that is encoded already.
	// It is ASCII. Where not all of it would be, it is empty and the two are in More.
	Verbatim string
	More     *More // what few addresses have, or nil
}

// More is what an address may have beside a name.
type More struct {
	Encoded  bool     // the name has encoded words
	Comments []string // each without its parentheses

	// Opens is the name of the group (RFC 5322, 3.4) that begins with this address, or "", and
	// Closes is true where one ends. An empty group is a Mailbox without an address that does both.
	Opens  string
	Closes bool
}

// Alone returns the address without the group it may begin or end.
func (b Mailbox) Alone() Mailbox {
	if b.More != nil {
		b.More = &More{Encoded: b.More.Encoded, Comments: b.More.Comments}
	}
	return b
}

// more returns a More to change.
func (b *Mailbox) more() *More {
	if b.More == nil {
		b.More = &More{}
	}
	return b.More
}

// IsUTF8 reports whether the local part is not ASCII, so that the next hop must offer SMTPUTF8
// (RFC 6531): a domain is always in punycode.
func (b Mailbox) IsUTF8() bool { return !charset.IsASCII(b.Addr) }

// Most octets of an address. What servers must take at least is 64 for a local part and 256 for an
// address in angle brackets, but a client may try more (RFC 5321, 4.5.3.1): addresses for replies
// and bounces have it, and are taken. So there is no limit but that of the line it is sent in
// (4.5.3.1.4), and for a domain what the DNS can hold.
const (
	maxAddress = 512 - len("MAIL FROM:<>\r\n")
	maxDomain  = 255
)

// Parse reads one address, with or without a display name. What is wrong
// with it is returned as a reason, empty if nothing is.
//
// It accepts more than the grammar does where people write more and can mean only one thing:
// dots and brackets in a name without quotes, dots anywhere in a local part, UTF-8 in both, no
// domain at all. It refuses what can be read in two ways.
func Parse(s string) (m Mailbox, reason string) {
	s = strings.Trim(s, " \t")
	if !strings.ContainsAny(s, " \t\"(),<>:;\\") { // a bare address, as most are
		m.Addr, reason = parseSpec(s)
		return m, reason
	}
	p := addressParser{all: s, rest: s}
	p.read()
	switch {
	case p.reason != "":
		return Mailbox{}, p.reason
	case p.rest != "": // a comma
		return Mailbox{}, "holds more than one address"
	}
	return p.finish(s)
}

const reasonAddress = "is not an address"

// addressParser reads one mailbox up to the end or to the comma after it.
type addressParser struct {
	all    string
	rest   string // what is still to be read of it
	reason string // why it cannot be read, or ""

	words  []string // of the name, or of an address without angle brackets
	start  int      // where the last one begins
	quoted bool     // one of the words was quoted
	gaps   bool     // there was white space or a comment between two words
	angle  bool     // there were angle brackets
	spec   string   // what they hold

	comments []string
}

func (p *addressParser) read() {
	gap := false
	for p.reason == "" && p.rest != "" && p.rest[0] != ',' {
		start := len(p.all) - len(p.rest)
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
			p.skipQuoted()
			p.word(start, gap)
		case strings.IndexByte(`>):;\`, c) >= 0:
			p.reason = reasonAddress
		default:
			p.skipAtom()
			p.word(start, gap)
		}
		gap = false
	}
}

// word adds what was read since start: to the last word, unless there was a gap.
func (p *addressParser) word(start int, gap bool) {
	end := len(p.all) - len(p.rest)
	if last := len(p.words) - 1; last >= 0 && !gap {
		p.words[last] = p.all[p.start:end]
		return
	}
	p.gaps = p.gaps || len(p.words) > 0
	p.start = start
	p.words = append(p.words, p.all[start:end])
}

func (p *addressParser) skipAtom() {
	n := strings.IndexAny(p.rest, " \t\"(),<>:;\\")
	if n < 0 {
		p.rest = ""
		return
	}
	// An address literal such as [IPv6:2001:db8::1] has colons.
	if i := strings.LastIndexByte(p.rest[:n], '['); i >= 0 && p.rest[n] == ':' {
		if end := strings.IndexByte(p.rest, ']'); end > n && !strings.ContainsAny(p.rest[i:end], " \t\"(),<>;\\") {
			n = end + 1
		}
	}
	p.rest = p.rest[n:]
}

func (p *addressParser) skipQuoted() {
	end := quotedEnd(p.rest)
	if end < 0 {
		p.reason = "has a quote that is not closed"
		return
	}
	p.quoted = true
	p.rest = p.rest[end:]
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
				p.comments = append(p.comments, p.rest[1:i])
				p.rest = p.rest[i+1:]
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
func (p *addressParser) finish(s string) (m Mailbox, reason string) {
	spec := p.spec
	if !p.angle {
		if len(p.words) == 0 {
			return m, "is empty"
		}
		if p.gaps {
			return m, reasonAddress
		}
		spec = p.words[0]
	} else if m.Name, reason = p.displayName(); reason != "" {
		return m, reason
	}
	if m.Addr, reason = parseSpec(spec); reason != "" {
		return m, reason
	}
	encoded := strings.Contains(m.Name, "=?") && !p.quoted
	switch {
	case len(p.comments) == 0 && !encoded:
	case charset.IsASCII(s):
		m.Verbatim = s
	default:
		m.More = &More{Comments: p.comments, Encoded: encoded}
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
func unquote(s string) string { return Unescape(s[1 : len(s)-1]) }

// Unescape returns what the inside of a quoted string or of a comment says: a backslash there
// belongs to the character behind it.
func Unescape(s string) string {
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
	var local, domain string
	var hasDomain bool
	if strings.HasPrefix(spec, `"`) {
		end := quotedEnd(spec)
		if end < 0 || end < len(spec) && spec[end] != '@' {
			return "", reasonAddress
		}
		local = unquote(spec[:end])
		domain, hasDomain = strings.CutPrefix(spec[end:], "@")
		if !isDotAtom(local) {
			local = Quote(local)
		}
	} else {
		local, domain, hasDomain = strings.Cut(spec, "@")
		if !isLocal(local) {
			return "", reasonAddress
		}
	}
	if hasDomain {
		if domain, reason = ASCIIDomain(domain); reason != "" {
			return "", reason
		}
		addr = local + "@" + domain
	} else {
		addr = local
	}
	switch {
	case strings.ContainsFunc(local, isSeparator):
		return "", reasonAddress
	case len(domain) > maxDomain:
		return "", "has a domain that is longer than any can be"
	case len(addr) > maxAddress:
		return "", "is too long for a line of SMTP"
	}
	return addr, ""
}

// isLocal reports whether s can be a local part without quotes. Dots may be anywhere:
// there are providers that gave out such addresses.
func isLocal(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < utf8.RuneSelf && c != '.' && !IsAtext(c) {
			return false
		}
	}
	return s != ""
}

// isSeparator finds what separates lines or words beyond ASCII. It has no place in an
// address, and some programs take it for a line end.
func isSeparator(r rune) bool {
	return r >= utf8.RuneSelf && (unicode.IsSpace(r) || unicode.IsControl(r))
}

func isDotAtom(s string) bool {
	return isLocal(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// IsAtext reports whether c may stand in an atom (RFC 5322, 3.2.3).
func IsAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// Quote makes a quoted string (RFC 5322, 3.2.4).
func Quote(s string) string {
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
