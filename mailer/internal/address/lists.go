package address

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
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

// Entries yields the mailboxes of an address list that may have groups in it, and the groups that
// are empty. If one cannot be read, it yields the reason and stops.
func Entries(list string) iter.Seq2[Mailbox, string] { return entries(list, Each) }

func entries(list string, each func(list string) iter.Seq2[Mailbox, string]) iter.Seq2[Mailbox, string] {
	return func(yield func(box Mailbox, reason string) bool) {
		for list != "" {
			g, rest, reason := cutGroup(list)
			for box, reason := range each(g.before) {
				if !yield(box, reason) || reason != "" {
					return
				}
			}
			if reason != "" {
				yield(Mailbox{}, reason)
				return
			}
			if g.name != "" && !g.each(each, yield) {
				return
			}
			list = rest
		}
	}
}

// group is a group of an address list (RFC 5322, 3.4), or what stands behind the last one.
type group struct {
	before  string // the addresses before it
	name    string // "" if there is no group
	members string
}

const reasonGroup = "has a group that no semicolon ends"

// cutGroup cuts a list behind its first group.
func cutGroup(list string) (g group, rest, reason string) {
	start := 0 // of the entry
	colon := scan(list, func(i int) bool {
		if list[i] == ',' {
			start = i + 1
		}
		return list[i] == ':' || list[i] == ';'
	})
	if colon == len(list) || list[colon] == ';' {
		return group{before: list}, "", ""
	}
	g.before, g.name, rest = list[:start], strings.Trim(list[start:colon], " \t"), list[colon+1:]
	p := addressParser{all: g.name, rest: g.name}
	p.read()
	if p.reason != "" || p.angle || len(p.words) == 0 {
		return g, "", cmp.Or(p.reason, reasonAddress)
	}
	if !charset.IsASCII(g.name) {
		if g.name, reason = p.displayName(); reason != "" {
			return g, "", reason
		}
	}
	end := scan(rest, func(i int) bool { return rest[i] == ';' })
	if end == len(rest) {
		return g, "", reasonGroup
	}
	g.members, rest = rest[:end], strings.TrimLeft(rest[end+1:], " \t")
	if rest, found := strings.CutPrefix(rest, ","); found || rest == "" {
		return g, rest, ""
	}
	return g, "", reasonAddress // nothing but a comma may follow
}

// each yields the members of the group, or one without an address if it has none.
func (g *group) each(each func(list string) iter.Seq2[Mailbox, string], yield func(box Mailbox, reason string) bool) bool {
	last := Mailbox{More: &More{Opens: g.name}}
	first := true
	for box, reason := range each(g.members) {
		if reason != "" {
			yield(Mailbox{}, reason)
			return false
		}
		if first {
			box.more().Opens, first = g.name, false
		} else if !yield(last, "") {
			return false
		}
		last = box
	}
	last.more().Closes = true
	return yield(last, "")
}

// scan returns the first place in a list that found reports, or its end. It steps over quoted
// strings, comments, angle brackets and address literals. What has no end is stepped over whole.
func scan(list string, found func(i int) bool) int {
	for i := 0; i < len(list); {
		switch list[i] {
		case '"', '(', '<', '[':
			n := Closed(list[i:])
			if n == 0 {
				return len(list)
			}
			i += n
			continue
		}
		if found(i) {
			return i
		}
		i++
	}
	return len(list)
}

// All yields the entries of a list that Check found good.
func All(list string) iter.Seq[Mailbox] {
	return func(yield func(Mailbox) bool) {
		for box, reason := range Entries(list) {
			if reason != "" || !yield(box) {
				return
			}
		}
	}
}

// Check returns how many addresses a list with or without groups has, whether one of them has a
// local part that is not ASCII, and what is wrong with the first one that cannot be read.
func Check(list string) (n int, utf8 bool, reason string) {
	for box, reason := range Entries(list) {
		if reason != "" {
			return n, utf8, reason
		}
		if box.Addr != "" {
			n++
		}
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

// Closed returns the length of the quoted string, comment, address in angle brackets or address
// literal that s begins with, or 0 if it has no end.
func Closed(s string) int {
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
