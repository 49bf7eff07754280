package rawmessage

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// isSevenBit reports whether the field can be written as it is.
func (f Field) isSevenBit() bool {
	for line := range f.Lines() {
		if !charset.IsASCII(line) || len(line) > mimewriter.MaxLine || strings.IndexByte(line, 0) >= 0 {
			return false
		}
	}
	return true
}

// hasStrayCR reports whether there is a CR that is no part of a line end: it is one to some.
func (f Field) hasStrayCR() bool {
	return strings.Contains(strings.ReplaceAll(f.Text, "\r\n", ""), "\r")
}

// writeField writes a field that cannot be written as it is, by its grammar. A stray CR is a blank, as
// for Postfix.
// With whatever false a field that breaks its grammar or has too long a word is refused.
func writeField(h *mimewriter.Header, f Field, whatever bool) (reason string) {
	value := strings.ReplaceAll(f.UTF8(), "\r", " ")
	if !charset.IsClean(value, charset.WithTab) {
		return fmt.Sprintf("has a control character in the field %.100s of a part", f.Name)
	}
	mark, long := len(h.Buf), h.Long
	h.Long = ""
	switch lower := strings.ToLower(f.Name); {
	case lower == "content-type" || lower == "content-disposition":
		if !whatever && !isParametric(value) {
			return fmt.Sprintf("has a field %s that breaks its grammar", f.Name)
		}
		writeParameters(h, f.Name, value)
		if len(h.Buf)-mark > maxContentType {
			return fmt.Sprintf("has a %s of more than %d bytes once it is encoded: shorten it", f.Name, maxContentType)
		}
	case headerfield.HoldsAddresses(f.Name):
		writeAddresses(h, f.Name, value)
	default:
		if reason := headerfield.Write(h, f.Name, f.Name, value, charset.UTF8()); reason != "" {
			writeWords(h, f.Name, value)
		}
	}
	if h.Long != "" {
		written := string(h.Buf[mark+len(f.Name)+len(":"):])
		h.Buf = h.Buf[:mark]
		if !whatever {
			return fmt.Sprintf("has a word that is too long in the field %s", f.Name)
		}
		reason = writeBroken(h, f.Name, written)
	}
	h.Long = long
	return reason
}

func writeAddresses(h *mimewriter.Header, name, value string) {
	for _, reason := range address.Found(value) {
		if reason != "" {
			writeWords(h, name, value)
			return
		}
	}
	h.AddressSeq(name, name, func(yield func(address.Mailbox) bool) {
		for box := range address.Found(value) {
			if !yield(box) {
				return
			}
		}
	}, charset.UTF8())
}

// writeWords writes a field that breaks its grammar. Only its words beyond ASCII become encoded words: programs still find
// addresses, IDs and URLs among the others. Words that stand side by side are encoded together, for white space between two
// encoded words is none (RFC 2047, 6.2).
func writeWords(h *mimewriter.Header, name, value string) {
	h.Begin(name, name)
	var run []string
	isCoded := func(word string) bool { return !charset.IsASCII(word) || strings.Contains(word, "=?") }
	for word := range strings.FieldsSeq(value) {
		if len(run) > 0 && isCoded(word) != isCoded(run[0]) {
			h.Words(strings.Join(run, " "), "", charset.UTF8())
			run = run[:0]
		}
		run = append(run, word)
	}
	h.Words(strings.Join(run, " "), "", charset.UTF8())
	h.End()
}

// forPeople are the fields of text whose words nobody but people reads.
var forPeople = []string{"subject", "comments", "content-description"}

// writeBroken writes a field in ASCII that has a word which is too long for a line. It is broken in
// two, as Postfix does (smtp_line_length_limit), unless people read it: an encoded word can be of any
// length.
func writeBroken(h *mimewriter.Header, name, value string) (reason string) {
	if slices.Contains(forPeople, strings.ToLower(name)) {
		h.Encoded(name, name, strings.Trim(strings.ReplaceAll(value, "\r\n", ""), " \t"), charset.UTF8())
		return ""
	}
	room := mimewriter.MaxLine - len(name) - len(": ")
	if room <= 0 {
		return fmt.Sprintf("has a field whose name is too long: %.40s...", name)
	}
	h.Begin(name, name)
	for word := range strings.FieldsSeq(value) {
		for len(word) > room {
			h.Put(" ", word[:room])
			word = word[room:]
		}
		h.Put(" ", word)
	}
	h.End()
	return ""
}

func isParametric(value string) bool {
	first, _, err := mime.ParseMediaType(value)
	return err == nil && charset.IsASCII(first)
}

// writeParameters writes a value with parameters, such as the name of a file. Those in ASCII stay as they are.
func writeParameters(h *mimewriter.Header, name, value string) {
	const long = 900 // leaves room for the semicolon
	if first, params, ok := continued(value); ok {
		h.ContentParams(name, mimewriter.NewMediaType(first, params))
		return
	}
	h.Begin(name, name)
	first := true
	for piece := range pieces(value) {
		switch {
		case first:
			h.Words(piece, "", charset.UTF8())
			first = false
		case piece == "":
		default:
			key, value := parameter(piece)
			if charset.IsASCII(piece) && (len(piece) < long || !isToken(key)) {
				h.Suffix(";")
				h.Words(piece, "", charset.UTF8())
				continue
			}
			if !isToken(key) {
				key = "x"
			}
			if strings.HasPrefix(value, `"`) {
				if n := address.Closed(value); n > 0 {
					value = address.Unescape(value[1:n-1]) + strings.TrimRight(value[n:], " \t")
				}
			}
			h.Param(key, value)
		}
	}
	h.End()
}

// continued reads a value that has a parameter which goes on in several (RFC 2231, 3): they are written
// anew together. ok is false if it has none, or breaks the rules.
func continued(value string) (first string, params map[string]string, ok bool) {
	if !strings.Contains(value, "*") || len(value) > maxContentType {
		return "", nil, false
	}
	first, params, err := mime.ParseMediaType(value)
	ok = err == nil && charset.IsASCII(first)
	for key := range params {
		ok = ok && isToken(key)
	}
	return first, params, ok
}

// isToken reports whether name can be that of a parameter, with room for a value beside it.
func isToken(name string) bool {
	const longest = 60
	return name != "" && len(name) <= longest && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?=*`, r)
	})
}
