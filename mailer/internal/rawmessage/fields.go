package rawmessage

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Field is a header field as it was read: name, colon and value, with the line ends in it.
// It is a part of the header, of which there is one copy.
type Field struct {
	Name string
	Text string
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

const reasonNoHeader = "does not begin with header fields and an empty line"

// Split cuts an entity, a message or a part of one, into its header fields and its body. reason
// is "", or what is wrong with the header: it is not one, or has more than a header may have.
func Split(raw []byte) (fields Fields, body []byte, reason string) {
	end, body, n, reason := measureHeader(raw)
	if reason != "" {
		return nil, nil, reason
	}
	header := string(raw[:end])
	fields = make(Fields, 0, n)
	start := 0 // of the current field
	for at := 0; at < len(header); {
		next := len(header)
		if i := strings.IndexByte(header[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if next == len(header) || !charset.IsSpace(header[next]) {
			text := header[start:next]
			fields = append(fields, Field{text[:strings.IndexByte(text, ':')], text})
			start = next
		}
		at = next
	}
	return fields, body, ""
}

// measureHeader finds where the header of an entity ends, its body, and how many fields there
// are. It keeps nothing, so that a header may be of any size before it is refused.
func measureHeader(raw []byte) (end int, body []byte, fields int, reason string) {
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
			if n := bytes.IndexByte(line, ':'); n <= 0 || !isFieldName(line[:n]) {
				return 0, nil, 0, reasonNoHeader
			}
			fields++
		}
		end = next
	}
	if fields == 0 {
		return 0, nil, 0, reasonNoHeader
	}
	return end, nil, fields, headerReason(end, fields)
}

// isFieldName reports whether name is a field name (RFC 5322, 2.2).
func isFieldName(name []byte) bool {
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

// UTF8 returns the field's value, unfolded, in UTF-8.
func (f Field) UTF8() string {
	value := f.value()
	if !utf8.ValidString(value) {
		return fromLatin1(value)
	}
	return value
}

// fromLatin1 reads octets that are not UTF-8 as what they most often are.
func fromLatin1(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/8)
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
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
