package address

import (
	"iter"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Unique drops the entries whose key an earlier one has.
func Unique(list []string, key func(string) string) []string {
	if len(list) < 2 {
		return list
	}
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		k := key(s)
		found := seen[k]
		seen[k] = true
		return found
	})
}

// LowerDomain makes addresses that are the same equal: domains may be in any letter
// case, but of a local part only its own server knows (RFC 5321, 2.4).
func LowerDomain(addr string) string {
	at := strings.LastIndexByte(addr, '@') + 1
	return addr[:at] + strings.ToLower(addr[at:])
}

func (b Mailbox) IsUTF8() bool { return !charset.IsASCII(b.Addr) }

func IsBlindCopy(name string) bool {
	return strings.EqualFold(name, "Bcc") || strings.EqualFold(name, "Resent-Bcc")
}

// IsHeader says whether a field holds addresses (RFC 5322, 3.6.2, 3.6.3 and 3.6.6).
func IsHeader(name string) bool {
	for _, with := range [...]string{"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"} {
		if len(name) == len(with) && strings.EqualFold(name, with) {
			return true
		}
	}
	return false
}

// Ungroup takes the groups out of an address list (RFC 5322, 3.4): "name: a, b;"
// becomes "a, b,". A list that is broken stays so.
func Ungroup(list string) string {
	out := make([]byte, 0, len(list))
	start := 0 // of the current entry, in out
	for list != "" {
		n := 1
		switch list[0] {
		case '"', '(', '<', '[':
			if n = closed(list); n == 0 {
				return string(out) + list
			}
			out = append(out, list[:n]...)
		case ':': // what stood before it is the group's name
			out = out[:start]
		case ';', ',':
			out = append(out, ',')
			start = len(out)
		default:
			out = append(out, list[0])
		}
		list = list[n:]
	}
	return string(out)
}

// closed is how long the quoted string, comment, address in angle brackets or address
// literal is that s begins with, or 0 if it does not end.
func closed(s string) int {
	p := addressParser{all: s, rest: s}
	switch s[0] {
	case '"':
		p.skipQuoted()
	case '(':
		p.skipComment()
	case '<':
		p.angleSpec()
	case '[':
		p.rest = s[strings.IndexByte(s, ']')+1:]
	}
	return len(p.all) - len(p.rest)
}

// Split yields the entries of an address list, which commas part, without the empty
// ones. If an entry cannot be read, it yields the reason and ends.
func Split(list string) iter.Seq2[string, string] {
	return func(yield func(entry, reason string) bool) {
		for list != "" {
			p := addressParser{all: list, rest: list}
			p.read()
			if p.reason != "" {
				yield("", p.reason)
				return
			}
			entry := strings.Trim(list[:len(list)-len(p.rest)], " \t")
			if entry != "" && !yield(entry, "") {
				return
			}
			list = strings.TrimPrefix(p.rest, ",")
		}
	}
}

// Each yields the addresses of a list. If one cannot be read, it yields the reason and
// ends. A list may be long, so it is read again where it is needed again, and not kept.
func Each(list string) iter.Seq2[Mailbox, string] {
	return func(yield func(box Mailbox, reason string) bool) {
		for entry, reason := range Split(list) {
			var box Mailbox
			if reason == "" {
				box, reason = Parse(entry)
			}
			if !yield(box, reason) || reason != "" {
				return
			}
		}
	}
}

// All yields the addresses of a list that was found good.
func All(list string) iter.Seq[Mailbox] {
	return func(yield func(Mailbox) bool) {
		for box, reason := range Each(list) {
			if reason != "" || !yield(box) {
				return
			}
		}
	}
}

// Check counts the addresses of a list, and says what is wrong with it. utf8 says
// that there is a local part that is not ASCII.
func Check(list string) (n int, utf8 bool, reason string) {
	for box, reason := range Each(list) {
		if reason != "" {
			return n, utf8, reason
		}
		n++
		utf8 = utf8 || box.IsUTF8()
	}
	return n, utf8, ""
}
