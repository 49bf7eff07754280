package address

import (
	"iter"
	"slices"
	"strings"
)

// Split yields the entries of an address list, which are separated by commas, without the empty
// ones. If one cannot be read, it yields the reason and stops.
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

// Each yields the addresses of a list. If one cannot be read, it yields the reason and stops. A
// list may be long, so callers read it again where they need it again, and keep nothing.
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

// All yields the addresses of a list that Check found good.
func All(list string) iter.Seq[Mailbox] {
	return func(yield func(Mailbox) bool) {
		for box, reason := range Each(list) {
			if reason != "" || !yield(box) {
				return
			}
		}
	}
}

// Check returns how many addresses a list has, whether one of them has a local part that is not
// ASCII, and what is wrong with the first one that cannot be read.
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

// Unique drops the entries of list whose key an earlier entry has. It changes list.
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

// IsBlindCopy reports whether a header field of that name holds addresses that only the envelope
// may have (RFC 5322, 3.6.3).
func IsBlindCopy(name string) bool {
	return strings.EqualFold(name, "Bcc") || strings.EqualFold(name, "Resent-Bcc")
}

// IsHeader reports whether a header field of that name holds addresses that
// readers see (RFC 5322, 3.6.2, 3.6.3 and 3.6.6).
func IsHeader(name string) bool {
	for _, with := range [...]string{"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"} {
		if len(name) == len(with) && strings.EqualFold(name, with) {
			return true
		}
	}
	return false
}

// Ungroup takes the groups out of an address list (RFC 5322, 3.4): "name: a, b;"
// becomes "a, b,". A list that cannot be read is returned as it is from there on.
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

// closed returns the length of the quoted string, comment, address in angle brackets or address
// literal that s begins with, or 0 if it has no end.
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
