package rawmessage

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Field is a header field as it was read: name, colon and value, with the line ends in it.
// It is a part of the header, of which there is one copy. Only what stands between the name and the
// colon (RFC 5322, 4.5.1) is left out.
type Field struct {
	Name string
	Text string

	charset string // of what is not UTF-8, or "" if the message does not say
}

// Lines yields the lines of the field without their ends, the first one with the name. It leaves
// out those of nothing but white space: to some readers they end the header.
func (f Field) Lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		first := true
		for line := range strings.Lines(f.Text) {
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if (first || strings.Trim(line, " \t") != "") && !yield(line) {
				return
			}
			first = false
		}
	}
}

// value is the field's value, unfolded.
func (f Field) value() string {
	whole := strings.TrimSuffix(strings.TrimSuffix(f.Text, "\n"), "\r")
	if strings.IndexByte(whole, '\n') >= 0 {
		var b strings.Builder
		b.Grow(len(whole))
		for line := range f.Lines() {
			b.WriteString(line)
		}
		whole = b.String()
	}
	return strings.Trim(whole[len(f.Name)+1:], " \t")
}

// Fields is a header.
type Fields []Field

// Get returns the value of the first field of that name, unfolded, or "". Letter case does not
// matter.
func (fs Fields) Get(name string) string {
	for _, f := range fs {
		if strings.EqualFold(f.Name, name) {
			return f.value()
		}
	}
	return ""
}

// What a raw message may have: more than any mail needs, and few enough that reading it takes
// no more memory than a few times its size.
const (
	maxRawHeader = 1_000_000 // bytes of a header, that of a part too
	maxRawFields = 10_000    // fields of a header
	maxRawParts  = 1_000     // parts, and levels of them
)

// maxDepth is how deep messages and multiparts may be nested to be rewritten: what is inside is
// searched for boundaries once for each level around it.
const maxDepth = 20

// maxContentType is how long a Content-Type may be to be taken apart. Each of its parameters
// costs many times its length in memory.
const maxContentType = 10_000

const reasonNoHeader = "does not begin with header fields and an empty line"

// splitHeader cuts a header that was measured into its n fields.
func splitHeader(header string, n int) Fields {
	fields := make(Fields, 0, n)
	start := 0 // of the current field
	for at := 0; at < len(header); {
		next := len(header)
		if i := strings.IndexByte(header[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if next == len(header) || !charset.IsSpace(header[next]) {
			fields = append(fields, newField(header[start:next]))
			start = next
		}
		at = next
	}
	return fields
}

// newField makes a field of its text. Blanks before the colon end the header to some who read it.
func newField(text string) Field {
	colon := strings.IndexByte(text, ':')
	name := strings.TrimRight(text[:colon], " \t")
	if len(name) < colon {
		text = name + text[colon:]
	}
	return Field{Name: name, Text: text}
}

// measureHeader finds where the header of an entity ends, its body, and how many fields there
// are. It keeps nothing, so that a header may be of any size before it is refused. A line that is no
// field ends the header of a part, which then has it in its body, and there is no header if the part
// begins so; in a message it is a reason.
func measureHeader(raw []byte, isPart bool) (end int, body []byte, fields int, reason string) {
	for end < len(raw) {
		line, next := raw[end:], len(raw)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, next = line[:i], end+i+1
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return end, raw[next:], fields, headerReason(end, fields)
		}
		if !charset.IsSpace(line[0]) || fields == 0 {
			if name, _, found := bytes.Cut(line, []byte(":")); !found || !isFieldName(name) {
				if isPart {
					return end, raw[end:], fields, headerReason(end, fields)
				}
				return 0, nil, 0, reasonNoHeader
			}
			fields++
		}
		end = next
	}
	if fields == 0 && !isPart {
		return 0, nil, 0, reasonNoHeader
	}
	return end, nil, fields, headerReason(end, fields)
}

// isFieldName reports whether name is a field name (RFC 5322, 2.2), which may have blanks behind it
// (4.5.1).
func isFieldName(name []byte) bool {
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c <= ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return len(name) > 0
}

// headerReason is why a header of that size is refused, or "".
func headerReason(size, fields int) string {
	switch {
	case size > maxRawHeader:
		return fmt.Sprintf("has a header of %d bytes, at most %d are allowed: shorten it", size, maxRawHeader)
	case fields > maxRawFields:
		return fmt.Sprintf("has a header of %d fields, at most %d are allowed: leave some out", fields, maxRawFields)
	}
	return ""
}

// Resent returns the fields of the newest resending: they stand together, each once,
// before those of older ones.
func (fs Fields) Resent() Fields {
	isResent := func(f Field) bool { return len(f.Name) > 7 && strings.EqualFold(f.Name[:7], "Resent-") }
	start := slices.IndexFunc(fs, isResent)
	if start < 0 {
		return nil
	}
	seen := map[string]bool{}
	for i, f := range fs[start:] {
		name := strings.ToLower(f.Name)
		if !isResent(f) || seen[name] {
			return fs[start : start+i]
		}
		seen[name] = true
	}
	return fs[start:]
}
