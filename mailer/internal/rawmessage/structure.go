package rawmessage

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// StructureReason says why a raw message has more parts, or more in the header of one, than a
// message may have, or "".
//
// It reads the body once, line by line, and keeps no more of it than the boundaries of the
// multiparts it is in: so a message may be anything before it is refused.
func StructureReason(fields Fields, body []byte) string {
	var s structure
	s.contentType = fields.Get("Content-Type")
	s.encoding = fields.Get("Content-Transfer-Encoding")
	s.defaultType = "text/plain"
	s.headerEnds()
	if len(s.open) == 0 && !s.inHeader {
		return s.reason // neither a multipart nor a message: there are no parts
	}
	for line := range mimewriter.Lines(body) {
		if s.line(line); s.reason != "" {
			return s.reason
		}
	}
	if s.inHeader {
		s.headerEnds()
	}
	if s.parts > maxRawParts {
		return cmp.Or(s.reason, fmt.Sprintf("has %d parts, at most %d are allowed: send them in several messages", s.parts, maxRawParts))
	}
	return s.reason
}

// structure is where in the tree of parts a line stands.
type structure struct {
	open  []openMultipart
	index map[string]int // of the multipart in open that has the boundary
	level int            // of the current entity: how many entities it is in
	parts int
	// reason is why the message is refused, or "".
	reason string

	// Of the header that is being read:
	inHeader     bool
	size, fields int
	contentType  string // of the entity, or what was read of it yet
	encoding     string
	last         *string // the field that the last line belongs to, if it is one of these two
	defaultType  string
}

// openMultipart is a multipart whose end has not come yet.
type openMultipart struct {
	boundary string
	level    int
	digest   bool
}

// line takes the next line of the body.
func (s *structure) line(line []byte) {
	if len(line) >= 2 && line[0] == '-' && line[1] == '-' && s.delimiter(line[2:]) || !s.inHeader {
		return
	}
	s.size += len(line) + len("\n")
	switch {
	case len(line) == 0:
		s.headerEnds()
	case charset.IsSpace(line[0]) && s.fields > 0:
		if s.last != nil && len(*s.last) <= maxContentType {
			*s.last += string(line)
		}
	default:
		s.field(line)
	}
}

// field takes the first line of a field.
func (s *structure) field(line []byte) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found || !isFieldName(name) {
		s.headerEnds() // what follows is the body
		return
	}
	name = bytes.TrimRight(name, " \t")
	s.fields++
	s.last = nil
	switch {
	case len(name) == len("Content-Type") && strings.EqualFold(string(name), "Content-Type") && s.contentType == "":
		s.last = &s.contentType
	case len(name) == len("Content-Transfer-Encoding") && strings.EqualFold(string(name), "Content-Transfer-Encoding") && s.encoding == "":
		s.last = &s.encoding
	default:
		return
	}
	*s.last = string(value[:min(len(value), maxContentType+1)])
}

// delimiter takes what stands behind two hyphens, and reports whether it is a boundary.
func (s *structure) delimiter(text []byte) bool {
	text = bytes.TrimRight(text, " \t")
	at, found := s.index[string(text)]
	end := false
	if !found {
		if text, end = bytes.CutSuffix(text, []byte("--")); !end {
			return false
		}
		if at, found = s.index[string(text)]; !found {
			return false
		}
	}
	if s.inHeader {
		s.headerEnds()
	}
	keep := at + 1
	if end {
		keep = at
	}
	for _, m := range s.open[keep:] {
		delete(s.index, m.boundary)
	}
	s.inHeader = false
	if !end {
		m := s.open[at]
		s.parts++
		s.level = m.level
		s.headerBegins("text/plain")
		if m.digest {
			s.defaultType = "message/rfc822"
		}
	}
	s.open = s.open[:keep]
	return true
}

// headerBegins is for each part of a multipart, and each message that is one.
func (s *structure) headerBegins(defaultType string) {
	if s.level++; s.level > maxRawParts {
		s.reason = fmt.Sprintf("has parts in more than %[1]d levels, at most %[1]d are allowed: nest fewer", maxRawParts)
	}
	s.inHeader = true
	s.size, s.fields = 0, 0
	s.contentType, s.encoding, s.last, s.defaultType = "", "", nil, defaultType
}

// headerEnds takes in what the header that was read says of the body.
func (s *structure) headerEnds() {
	s.inHeader = false
	if reason := headerReason(s.size, s.fields); reason != "" {
		s.reason = "has a part that " + reason
		return
	}
	if len(s.contentType) > maxContentType {
		s.reason = fmt.Sprintf("has a Content-Type of more than %d bytes, which is the most: shorten it", maxContentType)
		return
	}
	media, params := contentType(s.contentType, s.defaultType)
	switch boundary := params["boundary"]; {
	case strings.HasPrefix(media, "multipart/"):
		if _, taken := s.index[boundary]; taken || boundary == "" {
			return // the lines that would part it part the one around it
		}
		if s.index == nil {
			s.index = map[string]int{}
		}
		s.index[boundary] = len(s.open)
		s.open = append(s.open, openMultipart{boundary, s.level, media == "multipart/digest"})
	case media == "message/rfc822" && !isEncoded(s.encoding):
		s.headerBegins("text/plain")
	}
}
