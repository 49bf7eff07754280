package mailer

import (
	"bytes"
	"cmp"
	"mime"
	"strings"
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
	keepSigned bool // a signed part is not rewritten: the message is refused
}

// maxDepth is how deep messages and multiparts may be nested.
const maxDepth = 20

// entity writes a message or a part of one: its header, which says what the body is,
// and the body.
func (r *messageRewriter) entity(raw []byte, defaultType string, depth int) bool {
	fields, body, ok := splitEntity(raw)
	return ok && depth <= maxDepth && r.content(fields, body, defaultType, depth)
}

// content writes an entity that has been split.
func (r *messageRewriter) content(fields rawFields, body []byte, defaultType string, depth int) bool {
	media, params, err := mime.ParseMediaType(cmp.Or(fields.get("Content-Type"), defaultType))
	if err != nil {
		media = cmp.Or(media, "text/plain") // what a reader takes it for (RFC 2045, 5.2)
	}
	encoded := true
	switch strings.ToLower(fields.get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
		encoded = false
	}
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
	if boundary == "" || len(parts) == 0 {
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

// splitMultipart returns what stands between the boundaries.
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
			if last {
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

// rawField is a header field as it was read, without its line ends.
type rawField struct {
	name  string
	lines []string // the first one has the name
}

// value is the field's value, unfolded.
func (f rawField) value() string {
	return strings.Trim(strings.Join(f.lines, "")[len(f.name)+1:], " \t")
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

// splitEntity cuts an entity into its header fields and its body. It is false if
// the header is not one.
func splitEntity(raw []byte) (fields rawFields, body []byte, ok bool) {
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		raw = rest
		if len(line) == 0 {
			return fields, raw, true
		}
		if isSpace(line[0]) && len(fields) > 0 {
			last := &fields[len(fields)-1]
			last.lines = append(last.lines, string(line))
			continue
		}
		name, _, found := strings.Cut(string(line), ":")
		if checkHeaderName(name) != nil || !found {
			return nil, nil, false
		}
		fields = append(fields, rawField{name: name, lines: []string{string(line)}})
	}
	return fields, nil, len(fields) > 0
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
	text := strings.Join(f.lines, "\r\n")
	if isSevenBit([]byte(text), true) {
		r.buf = append(r.buf, text...)
		r.buf = append(r.buf, "\r\n"...)
		return true
	}
	value := f.text()
	if !isClean(value, withTab) {
		return false
	}
	if strings.HasPrefix(strings.ToLower(f.name), "content-") {
		return r.contentField(f.name, value)
	}
	if boxes, reason := parseAddresses(value); isAddressHeader(f.name) && reason == "" {
		r.addresses(f.name, f.name, boxes, utf8Charset())
		return true
	}
	r.text(f.name, f.name, value, utf8Charset())
	return true
}

// contentField writes a field with parameters, such as the name of a file.
func (r *messageRewriter) contentField(name, value string) bool {
	first, params, err := mime.ParseMediaType(value)
	if err != nil || !isASCII(first) {
		return false
	}
	r.contentParams(name, mediaType{value: first, params: sortedParams(params)})
	return true
}

// fromLatin1 reads octets that are not UTF-8 as what they most often are.
func fromLatin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}
