package charset

import (
	"bytes"
	"strings"
)

// Named returns the charset that a file of text names in itself, as XML, HTML and CSS can, and any
// text by a byte order mark. media is its type, such as text/html. ok is false if it names none.
// What it names may be no charset at all: name is "" if it could be none.
func Named(media string, content []byte) (name string, ok bool) {
	switch {
	case bytes.HasPrefix(content, []byte("\xef\xbb\xbf")):
		return "utf-8", true
	case bytes.HasPrefix(content, []byte("\xff\xfe")), bytes.HasPrefix(content, []byte("\xfe\xff")):
		return "utf-16", true
	}
	const prescan = 1024 // as far as browsers look
	begin := string(content[:min(len(content), prescan)])
	switch {
	case isXML(media), media == "text/html" && strings.HasPrefix(begin, "<?xml"):
		name, ok = xmlEncoding(begin)
	case media == "text/css":
		if begin, ok = strings.CutPrefix(begin, `@charset "`); ok {
			name, _, ok = strings.Cut(begin, `";`)
		}
	}
	if media == "text/html" && !ok {
		name, ok = metaCharset(begin)
	}
	if !isName(name) {
		name = ""
	}
	return name, ok
}

// IsUTF8Format reports whether a format is in UTF-8 unless it says otherwise: a reader of such a file
// does not know in which charset a mail has carried it (XML 1.0, 4.3.3; RFC 5545, 3.1.4; RFC 6350, 3.1).
func IsUTF8Format(media string) bool {
	return isXML(media) || media == "text/calendar" || media == "text/vcard" || media == "text/x-vcard"
}

func isXML(media string) bool { return media == "text/xml" || strings.HasSuffix(media, "+xml") }

// xmlEncoding reads the encoding of <?xml version="1.0" encoding="..."?>.
func xmlEncoding(begin string) (name string, ok bool) {
	if begin, ok = strings.CutPrefix(begin, "<?xml"); !ok {
		return "", false
	}
	if begin, _, ok = strings.Cut(begin, "?>"); !ok {
		return "", false
	}
	return value(begin, "encoding")
}

// metaCharset reads the charset of <meta charset="..."> or <meta content="text/html; charset=...">.
func metaCharset(begin string) (name string, ok bool) {
	begin = lower(begin)
	for {
		var tag string
		if _, begin, ok = strings.Cut(begin, "<meta"); !ok {
			return "", false
		}
		if tag, begin, ok = strings.Cut(begin, ">"); !ok {
			return "", false
		}
		if name, ok = value(tag, "charset"); ok {
			return name, true
		}
	}
}

// lower is strings.ToLower for ASCII alone, whatever the other bytes are.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// value finds what follows key and an equal sign, in quotes or not.
func value(s, key string) (value string, ok bool) {
	const space = " \t\r\n"
	for {
		if _, s, ok = strings.Cut(s, key); !ok {
			return "", false
		}
		if s, ok = strings.CutPrefix(strings.TrimLeft(s, space), "="); ok {
			break
		}
	}
	s = strings.TrimLeft(s, space+"\"'")
	if end := strings.IndexAny(s, space+"\"';/>"); end >= 0 {
		s = s[:end]
	}
	return s, true
}

// isName reports whether s could be the name of a charset.
func isName(s string) bool {
	return s != "" && len(s) <= maxCharsetName && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_.:+", r)
	})
}
