package mailer

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"mime"
	"strings"
	"unicode/utf8"
)

// sevenBitMessage rewrites an attached message so that it can be sent as 7bit: it
// encodes the parts in it that are not ASCII and the header fields that are
// not. What a reader sees stays the same. It is false if content is no message, or one
// that contradicts itself.
func sevenBitMessage(media mediaType, content []byte) ([]byte, bool) {
	if media.value != "message/rfc822" {
		return nil, false
	}
	var b bytes.Buffer
	r := messageRewriter{output: output{w: &b}}
	if !r.entity(content, "text/plain", 0) {
		return nil, false
	}
	r.flush()
	return b.Bytes(), r.long == "" && isSevenBit(b.Bytes(), true)
}

// messageRewriter writes the entities of a message, one after the other.
type messageRewriter struct {
	output
	keepSigned bool   // a signed part is not rewritten: the message is refused
	parts      int    // how many there were up to now
	reason     string // why the message cannot be rewritten, where that is not plain
}

// maxDepth is how deep messages and multiparts may be nested to be rewritten: what is inside is
// searched for boundaries once for each level around it.
const maxDepth = 20

// entity writes a message or a part of one: its header, which says what the body is,
// and the body.
func (r *messageRewriter) entity(raw []byte, defaultType string, depth int) bool {
	if depth > maxDepth {
		r.reason = fmt.Sprintf("has to be encoded anew, which takes a nesting of at most %d levels", maxDepth)
		return false
	}
	fields, body, reason := splitEntity(raw)
	return reason == "" && r.content(fields, body, defaultType, depth)
}

// content writes an entity that has been split.
func (r *messageRewriter) content(fields rawFields, body []byte, defaultType string, depth int) bool {
	contentType := fields.get("Content-Type")
	if len(contentType) > maxContentType {
		return false
	}
	media, params, err := mime.ParseMediaType(cmp.Or(contentType, defaultType))
	if err != nil {
		media = cmp.Or(media, "text/plain") // what a reader takes it for (RFC 2045, 5.2)
	}
	encoded := isEncoded(fields.get("Content-Transfer-Encoding"))
	switch {
	case media == "multipart/signed" && r.keepSigned:
		return false
	case strings.HasPrefix(media, "multipart/"):
		return !encoded && r.fields(fields, sevenBit) && r.multipart(body, media, params["boundary"], depth)
	case media == "message/rfc822" && !encoded:
		return r.fields(fields, sevenBit) && r.entity(body, "text/plain", depth+1)
	case isSevenBit(body, true):
		if !encoded {
			return r.fields(fields, sevenBit) && r.body(body, true, sevenBit)
		}
		return r.fields(fields, "") && r.body(body, true, sevenBit)
	}
	inLines := strings.HasPrefix(media, "text/")
	encoding := quotedPrintable // text stays readable
	if !inLines {
		encoding = chooseEncoding(body, false)
	}
	return !encoded && r.fields(fields, encoding) && r.body(body, inLines, encoding)
}

func (r *messageRewriter) body(body []byte, inLines bool, encoding transferEncoding) bool {
	switch encoding {
	case quotedPrintable:
		r.quoted(body, inLines)
	case base64Encoding:
		r.base64(body, inLines)
	default:
		r.plain(body, inLines)
	}
	return true
}

// multipart writes the parts of a multipart. What stands before and after
// them is for no reader (RFC 2046, 5.1.1) and is left out.
func (r *messageRewriter) multipart(body []byte, media, boundary string, depth int) bool {
	defaultType := "text/plain"
	if media == "multipart/digest" {
		defaultType = "message/rfc822"
	}
	parts := splitMultipart(body, boundary)
	if r.parts += len(parts); boundary == "" || len(parts) == 0 || r.parts > maxRawParts {
		return false
	}
	for i, p := range parts {
		if i > 0 {
			r.buf = append(r.buf, "\r\n"...)
		}
		r.buf = append(r.buf, "--"+boundary+"\r\n"...)
		if !r.entity(p, defaultType, depth+1) {
			return false
		}
	}
	r.buf = append(r.buf, "\r\n--"+boundary+"--\r\n"...)
	return true
}

// splitMultipart returns what stands between the boundaries, of no more parts than are too many.
func splitMultipart(body []byte, boundary string) (parts [][]byte) {
	delimiter := []byte("--" + boundary)
	start := -1 // of the current part
	for pos := 0; pos < len(body); {
		line, end := body[pos:], len(body)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, end = line[:i], pos+i+1
		}
		rest, found := bytes.CutPrefix(bytes.TrimRight(line, " \t\r"), delimiter)
		last := string(rest) == "--"
		if found && (last || len(rest) == 0) {
			if start >= 0 {
				// The line end before a boundary belongs to the boundary.
				parts = append(parts, bytes.TrimSuffix(bytes.TrimSuffix(body[start:pos], []byte("\n")), []byte("\r")))
			}
			if last || len(parts) > maxRawParts {
				return parts
			}
			start = end
		}
		pos = end
	}
	if start >= 0 {
		parts = append(parts, body[start:])
	}
	return parts
}

// rawField is a header field as it was read: name, colon and value, with the line ends in it.
// It is a part of the header, of which there is one copy.
type rawField struct {
	name string
	text string
}

// lines yields the lines of the field without their ends, the first one with the name. It leaves
// out those of nothing but white space: to some readers they end the header.
func (f rawField) lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		first := true
		for line := range strings.Lines(f.text) {
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if (first || !isBlank(line)) && !yield(line) {
				return
			}
			first = false
		}
	}
}

// value is the field's value, unfolded.
func (f rawField) value() string {
	whole := strings.TrimSuffix(strings.TrimSuffix(f.text, "\n"), "\r")
	if strings.IndexByte(whole, '\n') >= 0 {
		var b strings.Builder
		b.Grow(len(whole))
		for line := range f.lines() {
			b.WriteString(line)
		}
		whole = b.String()
	}
	return strings.Trim(whole[len(f.name)+1:], " \t")
}

type rawFields []rawField

func (fs rawFields) get(name string) string {
	for _, f := range fs {
		if strings.EqualFold(f.name, name) {
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

// splitEntity cuts an entity into its header fields and its body. If the header is not one, or
// has more than a header may have, the reason says so.
func splitEntity(raw []byte) (fields rawFields, body []byte, reason string) {
	end, body, n, reason := measureHeader(raw)
	if reason != "" {
		return nil, nil, reason
	}
	header := string(raw[:end])
	fields = make(rawFields, 0, n)
	start := 0 // of the current field
	for at := 0; at < len(header); {
		next := len(header)
		if i := strings.IndexByte(header[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if next == len(header) || !isSpace(header[next]) {
			text := header[start:next]
			fields = append(fields, rawField{text[:strings.IndexByte(text, ':')], text})
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
		if !isSpace(line[0]) || fields == 0 {
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

// isFieldName is checkHeaderName without an error.
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return len(name) > 0
}

func headerReason(size, fields int) string {
	switch {
	case size > maxRawHeader:
		return fmt.Sprintf("has a header of %d bytes, at most %d are allowed: shorten it", size, maxRawHeader)
	case fields > maxRawFields:
		return fmt.Sprintf("has a header of %d fields, at most %d are allowed: leave some out", fields, maxRawFields)
	}
	return ""
}

// fields writes a header and the empty line after it. An encoding, if given, is
// the one that the body now has.
func (r *messageRewriter) fields(fields rawFields, encoding transferEncoding) bool {
	for _, f := range fields {
		if encoding != "" && strings.EqualFold(f.name, "Content-Transfer-Encoding") {
			continue
		}
		if !r.rawField(f) {
			return false
		}
	}
	if encoding != "" && (encoding != sevenBit || fields.get("Content-Transfer-Encoding") != "") {
		r.buf = append(r.buf, "Content-Transfer-Encoding: "+string(encoding)+"\r\n"...)
	}
	r.buf = append(r.buf, "\r\n"...)
	return true
}

// rawField writes a field: unchanged if mail can carry it so, else encoded as
// a field of our own would be.
func (r *messageRewriter) rawField(f rawField) bool {
	if strings.Contains(strings.ReplaceAll(f.text, "\r\n", ""), "\r") {
		return false // a bare CR is a line end to some
	}
	if f.isSevenBit() {
		for line := range f.lines() {
			r.buf = append(r.buf, line...)
			r.buf = append(r.buf, "\r\n"...)
		}
		return true
	}
	value := f.utf8()
	if !isClean(value, withTab) {
		return false
	}
	if strings.HasPrefix(strings.ToLower(f.name), "content-") {
		return r.contentField(f.name, value)
	}
	if isAddressHeader(f.name) {
		if _, _, reason := checkAddresses(value); reason == "" {
			r.addresses(f.name, f.name, boxesOf(value), utf8Charset())
			return true
		}
	}
	r.text(f.name, f.name, value, utf8Charset())
	return true
}

// isSevenBit says whether the field can be written as it is.
func (f rawField) isSevenBit() bool {
	for line := range f.lines() {
		if !isASCII(line) || len(line) > maxLine || strings.IndexByte(line, 0) >= 0 {
			return false
		}
	}
	return true
}

// utf8 is the field's value in UTF-8.
func (f rawField) utf8() string {
	value := f.value()
	if !utf8.ValidString(value) {
		return fromLatin1(value)
	}
	return value
}

// contentField writes a field with parameters, such as the name of a file.
func (r *messageRewriter) contentField(name, value string) bool {
	if len(value) > maxContentType {
		return false
	}
	first, params, err := mime.ParseMediaType(value)
	if err != nil || !isASCII(first) {
		return false
	}
	r.contentParams(name, mediaType{value: first, params: sortedParams(params)})
	return true
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
