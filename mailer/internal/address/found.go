package address

import (
	"fmt"
	"iter"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Found yields what Entries does, of a list that another program wrote, as Postfix reads it: a name may
// have an @ and be in no quotes, so that it looks like an address, a domain may end in a dot, a route
// may stand before an address and white space beside its @ (RFC 5322, 4.4), and white space or semicolons may stand
// between addresses. If one cannot be read, it yields the reason, which names it, and stops. Comments and
// encoded names are in More, never in Verbatim.
func Found(list string) iter.Seq2[Mailbox, string] {
	return func(yield func(Mailbox, string) bool) {
		for box, reason := range entries(semicolons(list), found) {
			if reason == reasonAddress {
				reason = "has a group whose name cannot be read"
			}
			if !yield(box, reason) || reason != "" {
				return
			}
		}
	}
}

// semicolons puts a comma in the place of those that end no group, and behind those that do.
func semicolons(list string) string {
	if !strings.Contains(list, ";") {
		return list
	}
	out := make([]byte, 0, len(list)+1)
	open := false
	from := 0
	scan(list, func(i int) bool {
		switch list[i] {
		case ':':
			open = true
		case ';':
			out = append(out, list[from:i]...)
			if open {
				out = append(out, ';')
			}
			if rest := strings.TrimLeft(list[i+1:], " \t"); !open || rest != "" && rest[0] != ',' {
				out = append(out, ',')
			}
			open, from = false, i+1
		}
		return false
	})
	return string(append(out, list[from:]...))
}

// found is Each for Found.
func found(list string) iter.Seq2[Mailbox, string] {
	return func(yield func(Mailbox, string) bool) {
		for list != "" {
			end := scan(list, func(i int) bool { return list[i] == ',' })
			entry := list[:end]
			for colon := 0; colon < len(entry); { // a group in a group
				entry = entry[colon:]
				colon = scan(entry, func(i int) bool { return entry[i] == ':' }) + 1
			}
			entry = strings.Trim(entry, " \t")
			list = list[min(end+1, len(list)):]
			for box, reason := range foundIn(entry) {
				if reason != "" {
					reason = fmt.Sprintf("has %.80q, which %s", entry, reason)
				}
				if !yield(box, reason) || reason != "" {
					return
				}
			}
		}
	}
}

// foundIn yields the addresses of an entry of a list.
func foundIn(entry string) iter.Seq2[Mailbox, string] {
	return func(yield func(Mailbox, string) bool) {
		for entry != "" {
			p := addressParser{all: entry, rest: entry}
			p.read()
			entry = ""
			if p.angle && p.reason == reasonAddress && beginsAddress(p.rest) {
				p.reason, entry = "", p.rest
			}
			for box, reason := range p.found() {
				if !yield(box, reason) || reason != "" {
					return
				}
			}
		}
	}
}

// beginsAddress reports whether what stands behind an address in angle brackets is another one, and no word.
func beginsAddress(s string) bool {
	p := addressParser{all: s, rest: s}
	p.read()
	return p.angle || p.reason == "" && allAddresses(joinAt(p.words))
}

// found yields what was read.
func (p *addressParser) found() iter.Seq2[Mailbox, string] {
	return func(yield func(Mailbox, string) bool) {
		words := joinAt(p.words)
		switch {
		case p.reason != "":
			yield(Mailbox{}, p.reason)
			return
		case p.angle:
			box, reason := p.foundAngle()
			yield(box, reason)
			return
		case len(words) == 0: // comments alone
			return
		case p.gaps && !allAddresses(words):
			yield(Mailbox{}, reasonAddress)
			return
		}
		for i, word := range words {
			addr, reason := foundSpec(word)
			box := Mailbox{Addr: addr}
			if i == len(words)-1 && len(p.comments) > 0 {
				box.More = &More{Comments: p.comments}
			}
			if !yield(box, reason) || reason != "" {
				return
			}
		}
	}
}

// joinAt joins the words around an @ that has white space beside it (RFC 5322, 4.4).
func joinAt(words []string) []string {
	var joined []string
	for i, word := range words {
		if last := len(joined) - 1; i > 0 && (strings.HasPrefix(word, "@") || strings.HasSuffix(words[i-1], "@")) {
			joined[last] += word
			continue
		}
		joined = append(joined, word)
	}
	return joined
}

// foundAngle is finish for an address in angle brackets.
func (p *addressParser) foundAngle() (m Mailbox, reason string) {
	spec := p.spec
	if strings.HasPrefix(spec, "@") {
		if route := strings.IndexByte(spec, ':'); route > 0 {
			spec = spec[route+1:]
		}
	}
	if m.Addr, reason = foundSpec(strings.Trim(spec, " \t")); reason != "" {
		return m, reason
	}
	var name strings.Builder
	for i, w := range p.words {
		if i > 0 {
			name.WriteByte(' ')
		}
		if strings.HasPrefix(w, `"`) && quotedEnd(w) == len(w) {
			w = unquote(w)
		}
		name.WriteString(w)
	}
	m.Name = name.String()
	encoded := strings.Contains(m.Name, "=?") && !p.quoted
	if encoded || len(p.comments) > 0 {
		m.More = &More{Comments: p.comments, Encoded: encoded}
	}
	return m, ""
}

// foundSpec is parseSpec without the dot at the end of a domain.
func foundSpec(spec string) (addr, reason string) {
	if strings.Contains(spec, "@") && !strings.HasSuffix(spec, "@.") {
		spec = strings.TrimSuffix(spec, ".")
	}
	if strings.Contains(spec, "\t") { // in quotes: the envelope has no place for it
		return "", reasonAddress
	}
	return parseSpec(spec)
}

func allAddresses(words []string) bool {
	for _, w := range words {
		if !strings.Contains(w, "@") || !charset.IsASCII(w) {
			return false
		}
	}
	return true
}
