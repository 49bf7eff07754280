package rawmessage

import "unicode/utf8"

// Split cuts a message into its header fields and its body. reason is "", or what is wrong with the
// header: it is not one, or has more than a header may have.
func Split(raw []byte) (fields Fields, body []byte, reason string) { return split(raw, false) }

func split(raw []byte, isPart bool) (fields Fields, body []byte, reason string) {
	end, body, n, reason := measureHeader(raw, isPart)
	if reason != "" {
		return nil, nil, reason
	}
	header := string(raw[:end])
	fields = splitHeader(header, n)
	if !utf8.ValidString(header) {
		fields.setCharset(declaredCharset(fields, body, 0))
	}
	return fields, body, ""
}
