package rawmessage

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

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
	r := Rewriter{Writer: mimewriter.NewWriter(&b, mimewriter.Buffers{}, nil), strict: true}
	r.KeepWords = true
	fields, body, reason := Split(content)
	if reason != "" || !r.content(fields, body, "text/plain", 0) {
		return nil, false
	}
	_, _ = r.Flush() // a bytes.Buffer takes everything
	return b.Bytes(), r.Long == "" && mimewriter.IsSevenBit(b.Bytes(), true)
}

// Encode writes a finished message for a mail server that takes no bytes above 127: those of the body are encoded
// (RFC 6152, 3), but not below a signature. What of the header has such bytes already goes by SMTPUTF8 or not at all.
// reason is "", or why it cannot be done. The same message gives the same bytes each time.
func Encode(message []byte) (encoded []byte, reason string) {
	fields, body, reason := Split(message)
	if reason != "" {
		return nil, reason
	}
	b := bytes.NewBuffer(make([]byte, 0, len(message)+len(message)/2))
	r := Rewriter{Writer: mimewriter.NewWriter(b, mimewriter.Buffers{}, nil), KeepSigned: true, eightBit: true}
	if !fields.named("MIME-Version") {
		r.Buf = append(r.Buf, "MIME-Version: 1.0\r\n"...)
	}
	if !fields.named("Content-Type") && utf8.Valid(body) && !mimewriter.IsSevenBit(body, true) {
		r.Buf = append(r.Buf, "Content-Type: text/plain; charset=utf-8\r\n"...) // a reader can no longer guess from the bytes
	}
	if !r.Rewrite(fields, body) || r.Long != "" {
		return nil, cmp.Or(r.Reason, "has a line of more than 998 octets that cannot be written in another way")
	}
	if _, _ = r.Flush(); !bytes.HasSuffix(b.Bytes(), []byte("\r\n")) { // a bytes.Buffer takes everything
		b.WriteString("\r\n")
	}
	return b.Bytes(), ""
}

// Rewriter writes a message again, with everything encoded that is not ASCII and every line that
// is too long. It is for one message.
type Rewriter struct {
	mimewriter.Writer
	KeepSigned bool   // what a signature covers is not rewritten
	Reason     string // why the message cannot be rewritten

	eightBit bool // it is rewritten for its bytes above 127, not for a long line

	strict  bool            // what breaks the rules is refused, because it can be sent in another way
	parts   int             // how many there were up to now
	charset string          // of the message's text, if it names one
	covered map[string]bool // the fields that its signatures cover, by their names in lower case
}

// Rewrite writes the header and the body of a message, encoded anew where they have to be. It
// returns false if that cannot be done; what was written is then of no use.
func (r *Rewriter) Rewrite(fields Fields, body []byte) bool {
	r.KeepWords = true
	if r.KeepSigned {
		if signed := fields.named("DKIM-Signature"); signed {
			return r.refuse("has %s and a DKIM-Signature, which would be broken if the body was encoded anew", r.why())
		}
	}
	r.charset = declaredCharset(fields, body, 0)
	return r.content(fields, body, "text/plain", 0)
}

// WriteHeader writes only the header and the empty line after it, for a body that stays as it
// is. It returns false if a field cannot be written.
func (r *Rewriter) WriteHeader(fields Fields) bool {
	r.KeepWords = true
	if r.KeepSigned {
		r.covered = coveredFields(fields)
	}
	return r.fields(fields, "")
}

// why is the reason for which the message is rewritten.
func (r *Rewriter) why() string {
	if r.eightBit {
		return "octets above 127"
	}
	return "a line of more than 998 octets"
}

// refuse says why the message cannot be rewritten.
func (r *Rewriter) refuse(format string, args ...any) bool {
	if r.Reason == "" {
		r.Reason = fmt.Sprintf(format, args...)
	}
	return false
}

// entity writes a message or a part of one: its header, which says what the body is,
// and the body.
func (r *Rewriter) entity(raw []byte, defaultType string, depth int) bool {
	if depth > maxDepth {
		return r.refuse("has to be encoded anew, which takes a nesting of at most %d levels", maxDepth)
	}
	fields, body, reason := split(raw, true)
	if reason != "" {
		return r.refuse("has a part that %s", reason)
	}
	fields.setCharset(r.charset)
	return r.content(fields, body, defaultType, depth)
}

// content writes an entity that has been split.
func (r *Rewriter) content(fields Fields, body []byte, defaultType string, depth int) bool {
	value := fields.Get("Content-Type")
	if len(value) > maxContentType {
		return r.refuse("has to be encoded anew, which takes a Content-Type of at most %d bytes", maxContentType)
	}
	media, params := contentType(value, defaultType)
	encoding := transferEncoding(fields.Get("Content-Transfer-Encoding"))
	encoded := isEncoded(encoding) || r.strict && !isIdentity(encoding)
	switch {
	case media == "multipart/signed" && r.KeepSigned:
		if !mimewriter.IsSevenBit(body, true) {
			return r.refuse("has a signed part with a line of more than 998 octets or with octets above 127, and has to be encoded anew, which would break the signature")
		}
		return r.fields(fields, "") && r.body(body, true, mimewriter.SevenBit)
	case strings.HasPrefix(media, "multipart/") && hasParts(body, params["boundary"]):
		// A transfer encoding of a multipart is none (RFC 2045, 6.4): nobody reads it so.
		return r.fields(fields, mimewriter.SevenBit) && r.multipart(body, media, params["boundary"], depth)
	case media == "message/partial" && !mimewriter.IsSevenBit(body, true):
		return r.refuse("has a part of another message (message/partial) that is not in 7 bit, and cannot be encoded (RFC 2046, 5.2.2.1)")
	case media == "message/rfc822" && !encoded:
		return r.fields(fields, mimewriter.SevenBit) && r.entity(body, "text/plain", depth+1)
	case mimewriter.IsSevenBit(body, true):
		if !encoded {
			return r.fields(fields, mimewriter.SevenBit) && r.body(body, true, mimewriter.SevenBit)
		}
		return r.fields(fields, "") && r.body(body, true, mimewriter.SevenBit)
	case encoding == "base64" && !r.strict:
		return r.fields(fields, "") && r.wrapped(body, wrapBase64)
	case encoding == "quoted-printable" && !r.strict:
		return r.fields(fields, "") && r.wrapped(body, wrapQuoted)
	case encoded:
		return r.refuse("has a part in the transfer encoding %.40q with a line of more than 998 octets or with octets above 127, and only base64 and quoted-printable can be wrapped anew", encoding)
	case strings.HasPrefix(media, "multipart/"):
		return r.refuse("has a multipart without parts, whose text cannot be encoded anew: it has a line of more than 998 octets or octets above 127")
	}
	inLines := strings.HasPrefix(media, "text/")
	choice := mimewriter.QuotedPrintable // text stays readable
	if !inLines {
		choice = mimewriter.Choose(body, false)
	}
	return r.fields(fields, choice) && r.body(body, inLines, choice)
}

func (r *Rewriter) body(body []byte, inLines bool, encoding mimewriter.Encoding) bool {
	r.Content(body, inLines, encoding)
	return true
}

func (r *Rewriter) wrapped(body []byte, wrap func(w *mimewriter.Writer, body []byte)) bool {
	wrap(&r.Writer, body)
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
	if r.parts += len(parts); r.parts > maxRawParts {
		return r.refuse("has more than %d parts", maxRawParts)
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

// field writes a field: unchanged if mail can carry it so, else encoded as a field of our own would
// be.
func (r *Rewriter) field(f Field) bool {
	switch {
	case f.isSevenBit() && !f.hasStrayCR():
		for line := range f.Lines() {
			r.Buf = append(r.Buf, line...)
			r.Buf = append(r.Buf, "\r\n"...)
		}
		return true
	case r.covered[strings.ToLower(f.Name)]:
		return r.refuse("has a DKIM-Signature over the field %.100s, which cannot be sent as it is: it has octets above 127 or a line of more than 998", f.Name)
	}
	if reason := writeField(&r.Header, f, !r.strict); reason != "" {
		return r.refuse("%s", reason)
	}
	return true
}
