package rawmessage

import (
	"mime"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
)

// contentType reads a Content-Type; otherwise is the type of what has none. One that breaks the rules
// is read as far as its sense goes, for a part whose boundary is not found cannot be parted: with
// comments, with values beyond ASCII, and with a parameter twice, of which the first counts.
func contentType(value, otherwise string) (media string, params map[string]string) {
	if strings.Trim(value, " \t") == "" {
		return otherwise, nil
	}
	media, params, err := mime.ParseMediaType(value)
	if err == nil {
		return media, params
	}
	params = map[string]string{}
	media = "text/plain" // what a reader takes it for (RFC 2045, 5.2)
	first := true
	for piece := range pieces(value) {
		if first {
			first = false
			if word, _, _ := strings.Cut(piece, " "); strings.Count(word, "/") == 1 {
				media = strings.ToLower(word)
			}
			continue
		}
		name, value := parameter(piece)
		if _, taken := params[strings.ToLower(name)]; !taken {
			params[strings.ToLower(name)] = word(value)
		}
	}
	return media, params
}

// pieces yields what stands between the semicolons of a value.
func pieces(value string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start := 0
		for i := 0; i < len(value); {
			n := 1
			switch value[i] {
			case '"':
				n = max(1, address.Closed(value[i:]))
			case ';':
				if !yield(strings.Trim(value[start:i], " \t")) {
					return
				}
				start = i + 1
			}
			i += n
		}
		yield(strings.Trim(value[start:], " \t"))
	}
}

// parameter cuts a piece at its equal sign.
func parameter(piece string) (name, value string) {
	name, value, _ = strings.Cut(piece, "=")
	return strings.TrimRight(name, " \t"), strings.TrimLeft(value, " \t")
}

// word returns the value of a parameter that is one word, without what may stand behind it.
func word(value string) string {
	if strings.HasPrefix(value, `"`) {
		if n := address.Closed(value); n > 0 {
			return address.Unescape(value[1 : n-1])
		}
	}
	if n := strings.IndexAny(value, " \t("); n >= 0 {
		value = value[:n]
	}
	return value
}

// isEncoded reports whether a Content-Transfer-Encoding changes the body. It does if readers know it, or if some may:
// names of one's own begin with "x-" (RFC 2045, 6.3). What else stands there, as in "8-bit", is none to all of them.
func isEncoded(encoding string) bool {
	switch encoding = transferEncoding(encoding); encoding {
	case "base64", "quoted-printable", "uuencode":
		return true
	}
	return strings.HasPrefix(encoding, "x-")
}

// isIdentity reports whether a Content-Transfer-Encoding says by its right name that it changes nothing.
func isIdentity(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// transferEncoding is the encoding that a Content-Transfer-Encoding names, in lower case and without
// what some programs write behind it.
func transferEncoding(value string) string {
	value = strings.TrimLeft(value, " \t")
	if n := strings.IndexAny(value, " \t;("); n >= 0 {
		value = value[:n]
	}
	return strings.ToLower(value)
}
