package corpus

import (
	"bytes"
	"io"
	"mime"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// notCompared are the fields that are not sent, that are added, or whose meaning is in the parts.
var notCompared = []string{"bcc", "resent-bcc", "return-path", "mime-version", "content-transfer-encoding", "content-type", "content-disposition"}

// added are those that are added if a message has none.
var added = []string{"from", "date", "message-id"}

const ownHost = "app.example.com"

// message is what a reader sees of a message: the fields, in the order of their names, and the parts.
type message struct {
	fields []string
	files  []string // the names of the parts
	parts  []string // their types and contents
}

// meaning reads a message as far as its sense goes, whatever rules it breaks.
func meaning(raw []byte) message {
	for bytes.HasPrefix(raw, []byte("From ")) || bytes.HasPrefix(raw, []byte(">From ")) {
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	charset := charsetOf(raw)
	header, body := headerOf(raw)
	header = blanksBeforeColon.ReplaceAll(header, []byte("$1:"))
	end := []byte("\n\n")
	if len(header) == 0 {
		end = end[1:]
	}
	var m message
	for field := range strings.SplitSeq(unfold.ReplaceAllString(string(header), "$1"), "\n") {
		name, value, _ := strings.Cut(field, ":")
		if name = strings.ToLower(name); name != "" && !slices.Contains(notCompared, name) {
			m.fields = append(m.fields, name+": "+visible(value, charset))
		}
	}
	slices.SortStableFunc(m.fields, func(a, b string) int { return strings.Compare(fieldName(a), fieldName(b)) })
	for _, p := range catcher.Decode(slices.Concat(header, end, body)).Parts {
		if p.MediaType == "message/rfc822" {
			inner := meaning(p.Content)
			m.parts = append(append(m.parts, p.MediaType), slices.Concat(inner.fields, inner.parts)...)
			m.files = append(m.files, inner.files...)
			continue
		}
		content := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(p.Content))
		m.files = append(m.files, visible(p.Filename, charset))
		m.parts = append(m.parts, p.MediaType+"\n"+strings.TrimRight(content, "\n"))
	}
	return m
}

// headerOf cuts a message at the first line that is no field.
func headerOf(raw []byte) (header, body []byte) {
	at := 0
	for line := range bytes.Lines(raw) {
		if line[0] == '\n' {
			return raw[:max(at-1, 0)], raw[at+1:]
		}
		if folded := at > 0 && (line[0] == ' ' || line[0] == '\t'); !folded && !isField.Match(line) {
			break
		}
		at += len(line)
	}
	return raw[:max(at-1, 0)], raw[at:]
}

var (
	isField           = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)
	blanksBeforeColon = regexp.MustCompile(`(?m)^([!-9;-~]+)[ \t]+:`)
	unfold            = regexp.MustCompile(`\n([ \t])`)
)

func fieldName(field string) string {
	name, _, _ := strings.Cut(field, ":")
	return name
}

// without returns the fields of m without those that are added to a message that has none.
func (m message) without(original message) []string {
	return slices.DeleteFunc(slices.Clone(m.fields), func(f string) bool {
		name := fieldName(f)
		return slices.Contains(added, name) &&
			!slices.ContainsFunc(original.fields, func(f string) bool { return fieldName(f) == name })
	})
}

var charsetName = regexp.MustCompile(`(?i)charset\s*=\s*"?([-\w.:]+)`)

// charsetOf is the charset that a message names first.
func charsetOf(raw []byte) string {
	if m := charsetName.FindSubmatch(raw); m != nil {
		return string(m[1])
	}
	return ""
}

var domain = regexp.MustCompile(`xn--[-a-zA-Z0-9.]+`)

// visible is a text in UTF-8, without blanks and quotes, and with domains as people read them.
func visible(text, charset string) string {
	if !utf8.ValidString(text) {
		text = decoded(text, charset)
	}
	if words, err := (&mime.WordDecoder{CharsetReader: reader}).DecodeHeader(text); err == nil {
		text = words
	}
	text = strings.ReplaceAll(text, "@"+ownHost, "") // what an address without a domain gets
	text = domain.ReplaceAllStringFunc(text, func(s string) string {
		if name, err := idna.ToUnicode(s); err == nil {
			return name
		}
		return s
	})
	return strings.ToLower(strings.Map(func(r rune) rune {
		if r <= ' ' || r == '"' || r == '\\' || r == '<' || r == '>' {
			return -1
		}
		return r
	}, text))
}

func reader(charset string, r io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return enc.NewDecoder().Reader(r), nil
}

func decoded(text, charset string) string {
	if enc, err := htmlindex.Get(charset); err == nil {
		if s, err := enc.NewDecoder().String(text); err == nil && !strings.ContainsRune(s, utf8.RuneError) {
			return s
		}
	}
	s, _ := charmap.Windows1252.NewDecoder().String(text)
	return s
}
