package rawmessage

import (
	"bytes"
	"cmp"
	"fmt"
	"mime"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// SevenBit rewrites an attached message (media is its type) so that it can be sent as 7bit: it
// encodes the parts and the header fields in it that are not ASCII. A reader sees the same. It
// returns false if content is not a message, or one that contradicts itself.
func SevenBit(media mimewriter.MediaType, content []byte) ([]byte, bool) {
	if media.Value != "message/rfc822" {
		return nil, false
	}
	var b bytes.Buffer
	r := Rewriter{Writer: mimewriter.NewWriter(&b, mimewriter.Buffers{}, nil)}
	if !r.entity(content, "text/plain", 0) {
		return nil, false
	}
	_, _ = r.Flush() // a bytes.Buffer takes everything
	return b.Bytes(), r.Long == "" && mimewriter.IsSevenBit(b.Bytes(), true)
}

// Rewriter writes a message again, with everything encoded that is not ASCII and every line that
// is too long. It is for one message.
type Rewriter struct {
	mimewriter.Writer
	KeepSigned bool   // a message with a signed part is not rewritten
	Reason     string // why the message cannot be rewritten, or "" if there is no more to say

	parts int // how many there were up to now
}

// Rewrite writes the header and the body of a message, encoded anew where they have to be. It
// returns false if that cannot be done; what was written is then of no use.
func (r *Rewriter) Rewrite(fields Fields, body []byte) bool {
	return r.content(fields, body, "text/plain", 0)
}

// WriteHeader writes only the header and the empty line after it, for a body that stays as it
// is. It returns false if a field cannot be written.
func (r *Rewriter) WriteHeader(fields Fields) bool { return r.fields(fields, "") }

// maxDepth is how deep messages and multiparts may be nested to be rewritten: what is inside is
// searched for boundaries once for each level around it.
const maxDepth = 20

// entity writes a message or a part of one: its header, which says what the body is,
// and the body.
func (r *Rewriter) entity(raw []byte, defaultType string, depth int) bool {
	if depth > maxDepth {
		r.Reason = fmt.Sprintf("has to be encoded anew, which takes a nesting of at most %d levels", maxDepth)
		return false
	}
	fields, body, reason := Split(raw)
	return reason == "" && r.content(fields, body, defaultType, depth)
}

// content writes an entity that has been split.
func (r *Rewriter) content(fields Fields, body []byte, defaultType string, depth int) bool {
	contentType := fields.Get("Content-Type")
	if len(contentType) > maxContentType {
		return false
	}
	media, params, err := mime.ParseMediaType(cmp.Or(contentType, defaultType))
	if err != nil {
		media = cmp.Or(media, "text/plain") // what a reader takes it for (RFC 2045, 5.2)
	}
	encoded := isEncoded(fields.Get("Content-Transfer-Encoding"))
	switch {
	case media == "multipart/signed" && r.KeepSigned:
		return false
	case strings.HasPrefix(media, "multipart/"):
		return !encoded && r.fields(fields, mimewriter.SevenBit) && r.multipart(body, media, params["boundary"], depth)
	case media == "message/rfc822" && !encoded:
		return r.fields(fields, mimewriter.SevenBit) && r.entity(body, "text/plain", depth+1)
	case mimewriter.IsSevenBit(body, true):
		if !encoded {
			return r.fields(fields, mimewriter.SevenBit) && r.body(body, true, mimewriter.SevenBit)
		}
		return r.fields(fields, "") && r.body(body, true, mimewriter.SevenBit)
	}
	inLines := strings.HasPrefix(media, "text/")
	encoding := mimewriter.QuotedPrintable // text stays readable
	if !inLines {
		encoding = mimewriter.Choose(body, false)
	}
	return !encoded && r.fields(fields, encoding) && r.body(body, inLines, encoding)
}

func (r *Rewriter) body(body []byte, inLines bool, encoding mimewriter.Encoding) bool {
	r.Content(body, inLines, encoding)
	return true
}

// multipart writes the parts of a multipart. What stands before and after
// them is for no reader (RFC 2046, 5.1.1) and is left out.
func (r *Rewriter) multipart(body []byte, media, boundary string, depth int) bool {
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
			r.Buf = append(r.Buf, "\r\n"...)
		}
		r.Buf = append(r.Buf, "--"+boundary+"\r\n"...)
		if !r.entity(p, defaultType, depth+1) {
			return false
		}
	}
	r.Buf = append(r.Buf, "\r\n--"+boundary+"--\r\n"...)
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

// fields writes a header and the empty line after it. An encoding, if given, is
// the one that the body now has.
func (r *Rewriter) fields(fields Fields, encoding mimewriter.Encoding) bool {
	for _, f := range fields {
		if encoding != "" && strings.EqualFold(f.Name, "Content-Transfer-Encoding") {
			continue
		}
		if !r.field(f) {
			return false
		}
	}
	if encoding != "" && (encoding != mimewriter.SevenBit || fields.Get("Content-Transfer-Encoding") != "") {
		r.Buf = append(r.Buf, "Content-Transfer-Encoding: "+string(encoding)+"\r\n"...)
	}
	r.Buf = append(r.Buf, "\r\n"...)
	return true
}

// field writes a field: unchanged if mail can carry it so, else encoded as
// a field of our own would be.
func (r *Rewriter) field(f Field) bool {
	if strings.Contains(strings.ReplaceAll(f.Text, "\r\n", ""), "\r") {
		return false // a bare CR is a line end to some
	}
	if f.isSevenBit() {
		for line := range f.Lines() {
			r.Buf = append(r.Buf, line...)
			r.Buf = append(r.Buf, "\r\n"...)
		}
		return true
	}
	value := f.UTF8()
	if !charset.IsClean(value, charset.WithTab) {
		return false
	}
	if strings.HasPrefix(strings.ToLower(f.Name), "content-") {
		return r.contentField(f.Name, value)
	}
	if reason := headerfield.Write(&r.Header, f.Name, f.Name, value, charset.UTF8()); reason != "" {
		r.Text(f.Name, f.Name, value, charset.UTF8()) // what cannot be read is text to all who read it
	}
	return true
}

// isSevenBit reports whether the field can be written as it is.
func (f Field) isSevenBit() bool {
	for line := range f.Lines() {
		if !charset.IsASCII(line) || len(line) > mimewriter.MaxLine || strings.IndexByte(line, 0) >= 0 {
			return false
		}
	}
	return true
}

// contentField writes a field with parameters, such as the name of a file.
func (r *Rewriter) contentField(name, value string) bool {
	if len(value) > maxContentType {
		return false
	}
	first, params, err := mime.ParseMediaType(value)
	if err != nil || !charset.IsASCII(first) {
		return false
	}
	r.ContentParams(name, mimewriter.NewMediaType(first, params))
	return true
}
