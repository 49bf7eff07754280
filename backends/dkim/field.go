package dkim

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
)

// field is a header field as it was written, with its line ends.
type field struct {
	name  []byte
	value []byte // behind the colon
}

// splitFields cuts a header, which we have written ourselves, into its fields.
func splitFields(header []byte) []field {
	fields := make([]field, 0, bytes.Count(header, []byte("\n")))
	for len(header) > 0 {
		end := 0
		for {
			n := bytes.IndexByte(header[end:], '\n') + 1
			if n == 0 {
				end = len(header)
				break
			}
			if end += n; end == len(header) || (header[end] != ' ' && header[end] != '\t') {
				break
			}
		}
		name, value, _ := bytes.Cut(header[:end], []byte(":"))
		fields = append(fields, field{name, value})
		header = header[end:]
	}
	return fields
}

// get returns the value of the first field of that name.
func get(fields []field, name string) (value []byte, ok bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return isNamed(f, name) })
	if i < 0 {
		return nil, false
	}
	return fields[i].value, true
}

func isNamed(f field, name string) bool {
	return len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name))
}

// What is signed of a header. In oversigned, a name is listed once more than there are such fields, so that adding one
// breaks the signature (RFC 6376, 8.15), and RFC 8058 wants List-Unsubscribe and List-Unsubscribe-Post covered.
//
// Date and Message-ID are not signed: Amazon SES writes both anew, as its documentation says, which would break each signature. The time is
// in t= all the same. Nor is what relays add or change on the way, such as Received and Return-Path (RFC 6376, 5.4.1).
var (
	oversigned = []string{"From", "To", "Cc", "Subject", "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post"}
	alsoSigned = []string{
		"Sender", "In-Reply-To", "References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
		"List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner", "List-Archive", "Feedback-ID",
		"Resent-Date", "Resent-From", "Resent-To", "Resent-Cc",
	}
)

// cover returns the names for h=, and these fields in the form that is signed. Of several fields of a name the last one is the
// first (RFC 6376, 5.4.2).
func cover(fields []field) (names []string, covered []byte) {
	names = make([]string, 0, len(oversigned)+len(fields))
	take := func(name string) {
		for _, f := range slices.Backward(fields) {
			if isNamed(f, name) {
				names = append(names, name)
				covered = appendRelaxed(covered, name, f.value)
			}
		}
	}
	for _, name := range oversigned {
		take(name)
		names = append(names, name)
	}
	for _, name := range alsoSigned {
		take(name)
	}
	return names, covered
}

// appendRelaxed appends a field in the form that "relaxed" has (RFC 6376, 3.4.2): its name in lower case, on one line, with one
// blank for any white space and none around the value.
func appendRelaxed(dst []byte, name string, value []byte) []byte {
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	start, blank := len(dst), false
	for _, c := range value {
		switch c {
		case ' ', '\t', '\r', '\n': // a line end has a blank behind it, or the field ends
			blank = true
		default:
			if blank && len(dst) > start {
				dst = append(dst, ' ')
			}
			dst, blank = append(dst, c), false
		}
	}
	return append(dst, "\r\n"...)
}

const (
	fieldName = "DKIM-Signature"
	lineWidth = 76
)

// unsigned is the field up to b=, which is empty.
func unsigned(algorithm, domain, selector string, names []string, bodyHash []byte, at string) []byte {
	w := folded{buf: append(make([]byte, 0, 1<<10), fieldName+":"...)}
	w.width = len(w.buf)
	w.put(" v=1;")
	w.put(" a=", algorithm, ";")
	w.put(" c=relaxed/relaxed;")
	w.put(" d=", domain, ";")
	w.put(" s=", selector, ";")
	if at != "" {
		w.put(" t=", at, ";")
	}
	for i, name := range names {
		before, after := "", ":"
		if i == 0 {
			before = " h="
		}
		if i == len(names)-1 {
			after = ";"
		}
		w.put(before, name, after)
	}
	w.put(" bh=", base64.StdEncoding.EncodeToString(bodyHash), ";")
	return append(w.buf, "\r\n b="...)
}

// appendSignature completes the field.
func appendSignature(field, signature []byte) []byte {
	text := base64.StdEncoding.EncodeToString(signature)
	const width = lineWidth - len(" b=")
	for len(text) > width {
		field = append(append(field, text[:width]...), "\r\n   "...)
		text = text[width:]
	}
	return append(append(field, text...), "\r\n"...)
}

// folded writes tags, each in a new line if it does not fit in the last one.
type folded struct {
	buf   []byte
	width int // of the last line
}

// put writes the pieces of a tag, or of one of its values, where white space may stand before it (RFC 6376, 3.2 and 3.5).
func (w *folded) put(pieces ...string) {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	if w.width+n > lineWidth {
		w.buf, w.width = append(w.buf, "\r\n"...), 0
		if !strings.HasPrefix(pieces[0], " ") {
			w.buf, w.width = append(w.buf, ' '), 1
		}
	}
	for _, p := range pieces {
		w.buf = append(w.buf, p...)
	}
	w.width += n
}
