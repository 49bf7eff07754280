package catcher

import (
	"bytes"
	"mime"
	"strings"
)

// The parsing here is lenient, because people look at messages that their program does
// not yet make correctly: a line that is no header field begins the body, and a broken
// part is shown as far as it goes. net/mail and mime/multipart give up instead.

type field struct{ name, value string }

type fields []field

// get returns the first field of that name, in any letter case, or "".
func (f fields) get(name string) string {
	for _, field := range f {
		if strings.EqualFold(field.name, name) {
			return field.value
		}
	}
	return ""
}

// contentType returns the media type in lower case; text/plain if there is none or
// if it cannot be read (RFC 2045, 5.2).
func (f fields) contentType() (mediatype string, params map[string]string) {
	mediatype, params, err := mime.ParseMediaType(f.get("Content-Type"))
	if err != nil || !strings.Contains(mediatype, "/") {
		return "text/plain", nil
	}
	return mediatype, params
}

// split divides a message, or a part, into header fields, unfolded, and body.
func split(raw []byte) (header fields, body []byte) {
	for {
		lines, rest := cutField(raw)
		if lines[0] == "" {
			return header, rest // the empty line belongs to neither
		}
		name, first, ok := strings.Cut(lines[0], ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return header, raw
		}
		lines[0] = first
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		header = append(header, field{name: name, value: strings.TrimSpace(strings.Join(lines, " "))})
		raw = rest
	}
}

// cutField returns the first line and those that continue it, and what follows.
func cutField(raw []byte) (lines []string, rest []byte) {
	line, rest := cutLine(raw)
	lines = append(lines, string(line))
	for len(line) > 0 && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		line, rest = cutLine(rest)
		lines = append(lines, string(line))
	}
	return lines, rest
}

// cutLine returns the first line, without its end, and what follows.
func cutLine(raw []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(raw, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// parts divides a multipart body (RFC 2046, 5.1.1). The line end before a boundary
// belongs to the boundary. A missing last boundary is forgiven.
func parts(body []byte, boundary string) [][]byte {
	var all [][]byte
	delimiter := []byte("--" + boundary)
	begin := -1 // of the current part
	for at := 0; at < len(body); {
		line, rest := cutLine(body[at:])
		next := len(body) - len(rest)
		if after, ok := bytes.CutPrefix(line, delimiter); ok {
			after = bytes.TrimRight(after, " \t")
			last := string(after) == "--"
			if last || len(after) == 0 {
				if begin >= 0 {
					all = append(all, trimLineEnd(body[begin:at]))
				}
				if last {
					return all
				}
				begin = next
			}
		}
		at = next
	}
	if begin >= 0 && begin < len(body) {
		all = append(all, body[begin:])
	}
	return all
}

func trimLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}
