package rawmessage

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// UTF8 returns the field's value, unfolded, in UTF-8. What is not UTF-8 is in the charset that the
// message names for its text: programs that write 8-bit headers write both in the same. If it names
// none that the value could be in, it is taken for Latin-1.
func (f Field) UTF8() string {
	value := f.value()
	if utf8.ValidString(value) {
		return value
	}
	if text, ok := charset.Decode(f.charset, value); ok {
		return text
	}
	return charset.Latin1(value)
}

// setCharset sets the charset of the fields that have none.
func (fs Fields) setCharset(name string) {
	for i := range fs {
		if fs[i].charset == "" {
			fs[i].charset = name
		}
	}
}

// declaredCharset is the charset that a message names for its text, which is in its first part if it
// has parts, or "".
func declaredCharset(fields Fields, body []byte, depth int) string {
	value := fields.Get("Content-Type")
	if len(value) > maxContentType || depth > maxDepth {
		return ""
	}
	media, params := contentType(value, "")
	if name := params["charset"]; name != "" || !strings.HasPrefix(media, "multipart/") || params["boundary"] == "" {
		return name
	}
	first := firstPart(body, params["boundary"])
	end, body, n, reason := measureHeader(first, true)
	if reason != "" {
		return ""
	}
	return declaredCharset(splitHeader(string(first[:end]), n), body, depth+1)
}

// firstPart returns what follows the first boundary.
func firstPart(body []byte, boundary string) []byte {
	delimiter := []byte("--" + boundary)
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte("\n"))
		if bytes.Equal(bytes.TrimRight(line, " \t\r"), delimiter) {
			return rest
		}
		body = rest
	}
	return nil
}
