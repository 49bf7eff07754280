package headerfield

import (
	"net/mail"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// Write appends the field name with a value that has to be clean (charset.IsClean). Errors of h
// call it field. Encoded words are in cs. It appends nothing if there is a reason against the
// value, nor if a field that has a grammar is blank: an empty one says nothing, and is not allowed.
func Write(h *mimewriter.Header, name, field, value string, cs charset.Charset) (reason string) {
	grammar := Of(name)
	if grammar != Unstructured && strings.Trim(value, " \t") == "" {
		return ""
	}
	var items []item
	switch grammar {
	case Addresses, Address:
		n, _, reason := address.Check(value)
		switch {
		case reason != "":
			return reason
		case n == 0 && !strings.Contains(value, ":"): // no group either
			return "holds no address"
		case n > 1 && grammar == Address:
			return "holds more than one address"
		}
		h.AddressSeq(name, field, address.All(value), cs)
		return ""
	case MessageID:
		value, reason = ID(value)
	case MessageIDs:
		items, reason = messageIDs(value)
	case Date:
		items, reason = date(value)
	case URLs:
		items, reason = urls(value)
	case ListID:
		items, reason = listID(value)
	case Phrases:
		items, reason = phrases(value)
	case Tokens:
		items, reason = tokens(value)
	default:
	}
	switch {
	case reason != "":
		return reason
	case items == nil: // as it is
		h.Text(name, field, value, cs)
		return ""
	}
	h.Begin(name, field)
	for _, it := range items {
		it.write(h, cs)
	}
	h.End()
	return ""
}

// item is a part of a value.
type item struct {
	kind kind
	text string
	end  string // a comma that belongs to it, or ""
}

type kind uint8

const (
	verbatim kind = iota // ASCII
	phrase               // words for people, not in quotes
	comment              // without its parentheses
)

func (it item) write(h *mimewriter.Header, cs charset.Charset) {
	switch it.kind {
	case verbatim:
		h.Put(" ", it.text+it.end)
	case phrase:
		h.Words(it.text, it.end, cs)
	case comment:
		h.Comment(it.text, it.end, cs)
	}
}

// lexer cuts a value at its white space, its commas, and its comments, quoted strings and angle
// brackets, which may have white space inside.
type lexer struct {
	rest   string
	stops  string // where a word ends, beside white space
	reason string
}

const (
	allStops = ",(\"<"
	urlStops = ",<" // a URL may have parentheses
)

const reasonOpen = "has a quote, a comment or an angle bracket that is not closed"

// next returns the next part, "" at the end or if there is a reason why it cannot be read.
func (l *lexer) next() (part string) {
	l.rest = strings.TrimLeft(l.rest, " \t")
	if l.rest == "" {
		return ""
	}
	n := 1
	switch l.rest[0] {
	case ',':
	case '(', '"', '<':
		if n = address.Closed(l.rest); n == 0 {
			l.reason, l.rest = reasonOpen, ""
			return ""
		}
	default:
		if n = strings.IndexAny(l.rest, l.stops+" \t"); n < 0 {
			n = len(l.rest)
		}
	}
	part, l.rest = l.rest[:n], l.rest[n:]
	return part
}

// inner returns what stands between the brackets of a part that begins with opening.
func inner(part string, opening byte) (text string, ok bool) {
	if part[0] != opening {
		return "", false
	}
	return part[1 : len(part)-1], true
}

// isVisible reports whether s is ASCII with no white space and no angle bracket in it, and not
// empty.
func isVisible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '<' || c == '>' {
			return false
		}
	}
	return s != ""
}

const reasonID = "is not an id such as <left@right>"

// ID returns a message ID (RFC 5322, 3.6.4) with the angle brackets that it may lack.
func ID(s string) (id, reason string) {
	whole := strings.Trim(s, " \t")
	id, opened := strings.CutPrefix(whole, "<")
	id, closed := strings.CutSuffix(id, ">")
	switch {
	case opened != closed || !isVisible(id) || !isLeftRight(id):
		return "", reasonID
	case opened:
		return whole, ""
	}
	return "<" + id + ">", ""
}

// isLeftRight reports whether s is a left and a right side with an @ between them. It allows more
// than the grammar: some programs have always made IDs with colons, slashes and dots anywhere.
func isLeftRight(s string) bool {
	var at int // of the @
	if s[0] == '"' {
		at = address.Closed(s)
	} else if at = strings.IndexByte(s, '@'); at > 0 && strings.ContainsAny(s[:at], "()[],;\\\"") {
		return false
	}
	if at <= 0 || at+1 >= len(s) || s[at] != '@' {
		return false
	}
	right := s[at+1:]
	if literal, ok := strings.CutPrefix(right, "["); ok {
		right, ok = strings.CutSuffix(literal, "]")
		return ok && !strings.ContainsAny(right, "[]\\")
	}
	return !strings.ContainsAny(right, "()[],;@\\\"")
}

// messageIDs reads IDs, which are other people's and may look like anything in their brackets.
func messageIDs(value string) (items []item, reason string) {
	l := lexer{rest: value, stops: allStops}
	for part := l.next(); part != ""; part = l.next() {
		text, isComment := inner(part, '(')
		id, inBrackets := inner(part, '<')
		switch {
		case part == ",": // does not belong here, but is usual
		case isComment:
			items = append(items, item{kind: comment, text: text})
		case inBrackets && isVisible(id):
			items = append(items, item{text: part})
		case !inBrackets && isVisible(part) && isLeftRight(part):
			items = append(items, item{text: "<" + part + ">"})
		default:
			return nil, "holds what is not an id such as <left@right>"
		}
	}
	if len(items) == 0 && l.reason == "" {
		return nil, reasonID
	}
	return items, l.reason
}

// date reads a date. It is left as it is, but for comments beyond ASCII.
func date(value string) (items []item, reason string) {
	items, reason = tokens(value)
	if reason != "" {
		return nil, reason
	}
	bare := value
	if items != nil || strings.Contains(value, "(") {
		if bare, reason = withoutComments(value); reason != "" {
			return nil, reason
		}
	}
	if _, err := mail.ParseDate(bare); err != nil {
		return nil, "is not a date such as Fri, 02 Jan 2026 03:04:05 +0000"
	}
	return items, ""
}

func withoutComments(value string) (bare, reason string) {
	var words []string
	l := lexer{rest: value, stops: allStops}
	for part := l.next(); part != ""; part = l.next() {
		switch last := len(words) - 1; {
		case part[0] == '(':
		case part == "," && last >= 0:
			words[last] += part
		default:
			words = append(words, part)
		}
	}
	return strings.Join(words, " "), l.reason
}

// tokens reads words of ASCII and comments of anything. It returns nil if all of it is ASCII.
func tokens(value string) (items []item, reason string) {
	if charset.IsASCII(value) {
		return nil, ""
	}
	l := lexer{rest: value, stops: allStops}
	for part := l.next(); part != ""; part = l.next() {
		text, isComment := inner(part, '(')
		switch last := len(items) - 1; {
		case isComment:
			items = append(items, item{kind: comment, text: text})
		case !charset.IsASCII(part):
			return nil, "has text beyond ASCII outside of comments"
		case part == "," && last >= 0:
			items[last].end += part
		default:
			items = append(items, item{text: part})
		}
	}
	return items, l.reason
}

// urls reads the URLs of a list. One without angle brackets gets them.
func urls(value string) (items []item, reason string) {
	l := lexer{rest: value, stops: urlStops}
	for part := l.next(); part != ""; part = l.next() {
		text, isComment := inner(part, '(')
		link, inBrackets := inner(part, '<')
		if !inBrackets {
			link = part
		}
		switch last := len(items) - 1; {
		case part == ",":
			if last >= 0 && items[last].end == "" {
				items[last].end = part
			}
		case isComment:
			items = append(items, item{kind: comment, text: text})
		case strings.EqualFold(part, "NO"): // of List-Post: nobody may post
			items = append(items, item{text: part})
		default:
			if link, reason = escapeURL(strings.Trim(link, " \t")); reason != "" {
				return nil, reason
			}
			items = append(items, item{text: "<" + link + ">"})
		}
	}
	if last := len(items) - 1; last >= 0 {
		items[last].end = "" // a comma with nothing behind it
	}
	if !slices.ContainsFunc(items, func(it item) bool { return it.kind == verbatim }) && l.reason == "" {
		return nil, reasonURL
	}
	return items, l.reason
}

// listID reads a name and an ID in angle brackets. In ASCII it may be anything.
func listID(value string) (items []item, reason string) {
	if charset.IsASCII(value) {
		return nil, ""
	}
	box, reason := address.Parse(value) // the ID is like a local part
	switch {
	case reason != "" || !charset.IsASCII(box.Addr) || !strings.Contains(value, "<"):
		return nil, "is not a name and an id such as Name <list.example.com>"
	case box.Name != "":
		items = append(items, item{kind: phrase, text: box.Name})
	}
	items = append(items, item{text: "<" + box.Addr + ">"})
	if box.More != nil {
		for _, c := range box.More.Comments {
			items = append(items, item{kind: comment, text: c})
		}
	}
	return items, ""
}

// phrases reads words for people with commas between them. It returns nil if all of it is ASCII.
func phrases(value string) (items []item, reason string) {
	if charset.IsASCII(value) {
		return nil, ""
	}
	open := false // a phrase that has not come to its comma
	l := lexer{rest: value, stops: allStops}
	for part := l.next(); part != ""; part = l.next() {
		last := len(items) - 1
		text, isComment := inner(part, '(')
		switch quoted, isQuoted := inner(part, '"'); {
		case part == ",":
			if open {
				items[last].end = part
			}
			open = false
		case isComment:
			items, open = append(items, item{kind: comment, text: text}), true
		case isQuoted && !charset.IsASCII(quoted):
			part = address.Unescape(quoted)
			fallthrough
		case !open || items[last].kind == comment:
			items, open = append(items, item{kind: phrase, text: part}), true
		default:
			items[last].text += " " + part
		}
	}
	if last := len(items) - 1; last >= 0 {
		items[last].end = "" // a comma with nothing behind it
	}
	return items, l.reason
}
