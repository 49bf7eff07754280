package smtpd

import (
	"bytes"
	"mime"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// What the names of fields are or begin with that are for us.
const (
	keyField    = "Idempotency-Key"
	fieldPrefix = "X-Mailpouch-"
)

// maxHops is how many Received fields a message may have (RFC 5321, 6.3).
const maxHops = 100

// header is what has to be known of a message's header.
type header struct {
	message []byte
	end     int    // of the fields
	headed  bool   // an empty line follows, or nothing
	ours    []span // fields that are for us, which are taken out
	hops    int    // Received fields
}

// span is a part of the message.
type span struct{ from, to int }

// readHeader reads the header of a message, in which every line ends with CRLF, but maybe the last.
func readHeader(message []byte) header {
	h := header{message: message}
	ours := false // the field before
	for h.end < len(message) {
		next := len(message)
		if i := bytes.IndexByte(message[h.end:], '\n'); i >= 0 {
			next = h.end + i + 1
		}
		line := message[h.end:next]
		switch name := fieldName(line); {
		case string(line) == "\r\n":
			h.headed = true
			return h
		case h.end > 0 && (line[0] == ' ' || line[0] == '\t'):
			if ours {
				h.ours[len(h.ours)-1].to = next
			}
		case len(name) == 0:
			return h
		default:
			if ours = isOurs(name); ours {
				h.ours = append(h.ours, span{h.end, next})
			}
			if bytes.EqualFold(name, []byte("Received")) {
				h.hops++
			}
		}
		h.end = next
	}
	h.headed = true
	return h
}

// fieldName is the name of the field that a line begins (RFC 5322, 2.2, with the blanks of 4.5.1), or nothing.
func fieldName(line []byte) []byte {
	name, _, found := bytes.Cut(line, []byte(":"))
	if !found {
		return nil
	}
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return nil
		}
	}
	return name
}

func isOurs(name []byte) bool {
	switch name[0] {
	case 'I', 'i':
		return strings.EqualFold(string(name), keyField)
	case 'X', 'x':
		return len(name) > len(fieldPrefix) && strings.EqualFold(string(name[:len(fieldPrefix)]), fieldPrefix)
	}
	return false
}

// raw is the message with trace fields in front, and without the fields that are for us.
func (h header) raw(trace string) []byte {
	raw := make([]byte, 0, len(trace)+len(h.message)+len("\r\n"))
	raw = append(raw, trace...)
	at := 0
	for _, s := range h.ours {
		raw = append(raw, h.message[at:s.from]...)
		at = s.to
	}
	raw = append(raw, h.message[at:h.end]...)
	if !h.headed {
		raw = append(raw, "\r\n"...)
	}
	return append(raw, h.message[h.end:]...)
}

// ownField is a field that is for us: what it chooses, which takes a key that allows it, and how it is read.
type ownField struct {
	choice intake.Choice // "" needs no leave
	many   bool          // it may be there several times
	set    func(o *mailer.Options, value string) (reason string)
}

// ownFields are all of them, by their names in lower case.
func ownFields() map[string]ownField {
	text := func(field func(o *mailer.Options) *string) func(o *mailer.Options, value string) string {
		return func(o *mailer.Options, value string) string {
			*field(o) = value
			return ""
		}
	}
	return map[string]ownField{
		"idempotency-key":     {set: text(func(o *mailer.Options) *string { return &o.IdempotencyKey })},
		"x-mailpouch-queue":   {choice: intake.ChooseQueue, set: text(func(o *mailer.Options) *string { return &o.Queue })},
		"x-mailpouch-mailer":  {choice: intake.ChooseMailer, set: text(func(o *mailer.Options) *string { return &o.Using })},
		"x-mailpouch-mailing": {choice: intake.ChooseMailing, set: text(func(o *mailer.Options) *string { return &o.Mailing })},
		"x-mailpouch-tag": {choice: intake.ChooseTags, many: true, set: func(o *mailer.Options, value string) string {
			o.Tags = append(o.Tags, value)
			return ""
		}},
		"x-mailpouch-schedule": {choice: intake.ChooseSchedule, set: func(o *mailer.Options, value string) string {
			at, err := time.Parse(time.RFC3339, value)
			if err != nil {
				return "is not a time as RFC 3339 writes it"
			}
			o.ProcessAt = at
			return ""
		}},
	}
}

// options reads the fields that are for us, as far as the key allows.
func (h header) options(key *intake.Key) (o mailer.Options, r reply) {
	if len(h.ours) == 0 {
		return o, ""
	}
	known, seen := ownFields(), map[string]bool{}
	for _, s := range h.ours {
		name, value := h.field(s)
		low := strings.ToLower(name)
		f, ok := known[low]
		switch {
		case !ok:
			return o, answer("550 5.6.0", "%s: there is no such field", name)
		case f.choice != "" && !key.May(f.choice):
			return o, answer("550 5.7.1", "%s: the API key does not allow it", name)
		case seen[low] && !f.many:
			return o, answer("550 5.6.0", "%s: is there twice", name)
		case value == "":
			return o, answer("550 5.6.0", "%s: is empty", name)
		}
		seen[low] = true
		if reason := f.set(&o, value); reason != "" {
			return o, answer("550 5.6.0", "%s: %s", name, reason)
		}
	}
	return o, ""
}

// field is the name of a field and its value, unfolded and with its encoded words decoded.
func (h header) field(s span) (name, value string) {
	name, value, _ = strings.Cut(string(h.message[s.from:s.to]), ":")
	value = strings.Trim(strings.ReplaceAll(value, "\r\n", ""), " \t")
	if strings.Contains(value, "=?") {
		if decoded, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
			value = decoded
		}
	}
	return strings.TrimRight(name, " \t"), value
}
