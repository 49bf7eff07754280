package adminlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// report writes the text of a mail.
type report struct {
	redact func(key string) bool
	body   strings.Builder
}

const (
	redacted = "[redacted]"
	indent   = "    "
	ruler    = "\n----------------------------------------\n\n"
)

// mail returns the subject and the body for lines. The subject is the most important of
// the lines that cause the mail, and the body begins with it.
func (r *report) mail(lines []line, leftOut int) (subject, body string) {
	i := gravest(lines)
	subject = r.line(lines[i])
	for j, l := range lines {
		if j != i {
			r.body.WriteString(ruler)
			r.line(l)
		}
	}
	if leftOut > 0 {
		r.body.WriteString(ruler)
		fmt.Fprintf(&r.body, "Lines left out since the last mail: %d. There were too many, or a mail could not be sent.\nThey are in the log.\n", leftOut)
	}
	more := ""
	if n := len(lines) - 1 + leftOut; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return shorten(escape(subject), maxSubject-len(more)) + more, r.body.String()
}

// gravest returns the index of the first of the most important lines.
func gravest(lines []line) int {
	found := 0
	for i, l := range lines {
		if lines[found].less(l) {
			found = i
		}
	}
	return found
}

// line writes one line of the log, all its fields, and returns its title.
func (r *report) line(l line) (title string) {
	fields, whole := decode(l.text)
	for i, f := range fields {
		fields[i].value = r.clean(f.key, f.value)
	}
	text := strings.ToValidUTF8(l.text, "\ufffd")
	title = strings.ToUpper(l.level.String()) + ": " + message(fields, text, r.redact != nil)
	r.body.WriteString(shorten(escape(title), maxSubject) + "\n\n")
	for _, f := range fields {
		r.field("", f.key, f.value)
	}
	switch {
	case whole:
	case r.redact != nil: // the rest may have what must not be mailed
		r.body.WriteString("The line cannot be read to its end. It is in the log.\n")
	default:
		r.field("", "The line cannot be read to its end. This is all of it", text+"\n")
	}
	return title
}

// message says in one line what happened.
func message(fields []field, text string, hidden bool) string {
	for _, key := range []string{zerolog.MessageFieldName, zerolog.ErrorFieldName} {
		if s, ok := find(fields, key); ok && s != "" {
			return s
		}
	}
	if len(fields) > 0 || hidden || text == "" {
		return "(no message)"
	}
	return text
}

// clean returns a field's value, redacted where Redact says so.
func (r *report) clean(key string, value any) any {
	if r.redact == nil {
		return value
	}
	if r.redact(key) {
		return redacted
	}
	switch v := value.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = r.clean(k, inner)
		}
	case []any:
		for i, inner := range v { // the key is that of the list
			v[i] = r.clean(key, inner)
		}
	}
	return value
}

// field writes "key: value". A value of several lines is indented below the key.
func (r *report) field(margin, key string, value any) {
	key = margin + escape(key) + ":"
	if len(margin) > maxDepth*len(indent) {
		r.text(key, value)
		return
	}
	switch v := value.(type) {
	case map[string]any:
		r.body.WriteString(key + "\n")
		for _, k := range slices.Sorted(maps.Keys(v)) {
			r.field(margin+indent, k, v[k])
		}
	case []any:
		r.body.WriteString(key + "\n")
		for _, item := range v {
			r.text(margin+indent+"-", item)
		}
	default:
		r.text(key, value)
	}
}

// maxDepth is how deep fields within fields are still indented. Deeper ones are JSON, so
// that a line of the log makes no mail of megabytes.
const maxDepth = 4

// text writes a value behind what it is called, or below it if it has several lines.
func (r *report) text(name string, value any) {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(plain(value))
	if !strings.Contains(text, "\n") {
		r.body.WriteString(name + " " + text + "\n")
		return
	}
	margin := name[:len(name)-len(strings.TrimLeft(name, " "))] + indent
	r.body.WriteString(name + "\n")
	for row := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if row != "" {
			row = margin + row
		}
		r.body.WriteString(row + "\n")
	}
}

// plain is a value as text: what is not text itself is JSON.
func plain(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return fmt.Sprint(value)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// maxSubject is how many characters a subject has, the prefix of the Mailer excluded.
// Lists of mail show fewer.
const maxSubject = 200

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	const dots = "..."
	return string([]rune(s)[:most-len(dots)]) + dots
}

// escape writes line ends and other invisible characters as Go does, such as "\n": a
// header must not have them, and a reader should see that they were there.
func escape(s string) string {
	if !strings.ContainsFunc(s, isHidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isHidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isHidden(r rune) bool { return !unicode.IsGraphic(r) }
