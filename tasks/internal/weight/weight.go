// Package weight says how many bytes a message has, as it is sent and in the memory of a worker, and keeps both within bounds.
package weight

import (
	"fmt"
	"io"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// Check refuses a message that is bigger than the limit: an InvalidMessageError that names
// its biggest field. Everything counts that an author can make long: what is sent, as it is
// sent, and what is only in the envelope. Neither that nor what was handed over, which waits in
// Redis, may be bigger.
func Check(m *mailer.EmailMessage, limit int) error {
	w := Of(m)
	size := int64(w.Sum())
	// Nothing grows to more than four times its size, and what the queue adds to a header is
	// small: most messages need no closer look. Nor does one whose header is too big already,
	// for unlike the contents it is written in one piece.
	const headers = 64 << 10
	if 4*size+headers > int64(limit) && w.header() <= limit {
		sent, err := m.WriteTo(io.Discard)
		if err != nil {
			return err
		}
		size = max(size, sent+int64(w.unsent))
	}
	if size <= int64(limit) {
		return nil
	}
	return &mailer.InvalidMessageError{
		Field:  w.biggest(),
		Reason: fmt.Sprintf("the whole message has %s, more than the %s of EMAIL_MAX_MESSAGE_SIZE", octets(size), octets(int64(limit))),
	}
}

// The fields of a message in a weight.
const (
	inSubject = iota
	inBody
	inFrom
	inTo
	inCc
	inBcc
	inReplyTo
	inHeaders
	inOthers // content_subtype and the like, which nobody makes long by mistake
	inAlternatives
	inAttachments
	inRaw
	countFields
)

// Weight is how many bytes the fields of a message have as they were handed over.
type Weight struct {
	fields  [countFields]int
	files   int // the part of them that is the content of files, or a raw message
	unsent  int // and what is in the envelope alone
	parts   int // alternatives and attachments
	entries int // they, addresses and header fields: each costs memory of its own
}

// entryHeader is what an address or a header field has around it, in JSON as in a message.
const entryHeader = 4

// Of counts what is in a message.
func Of(m *mailer.EmailMessage) Weight {
	var w Weight
	w.fields[inSubject], w.fields[inFrom] = len(m.Subject), len(m.FromEmail)
	w.fields[inTo], w.fields[inCc], w.fields[inBcc], w.fields[inReplyTo] = w.list(m.To), w.list(m.Cc), w.list(m.Bcc), w.list(m.ReplyTo)
	w.fields[inOthers] = len(m.ContentSubtype) + len(m.Charset) + len(m.MessageID)
	for c := range m.Contents() {
		w.content(c)
	}
	w.unsent = w.fields[inBcc]
	if len(m.Raw) > 0 {
		w.unsent += w.fields[inFrom] + w.fields[inTo] + w.fields[inCc]
	}
	for name, value := range m.Headers {
		size := entryHeader + len(name) + len(value)
		w.fields[inHeaders] += size
		w.entries++
		if isBlindCopy := strings.HasSuffix(strings.ToLower(name), "bcc"); isBlindCopy {
			w.unsent += size
			w.entries += strings.Count(value, ",")
		}
	}
	w.entries += w.parts
	return w
}

// content counts one of the contents.
func (w *Weight) content(c mailer.Content) {
	field := inBody
	switch c.Field {
	case "attachments":
		field = inAttachments
		w.files += c.Size
	case "alternatives":
		field = inAlternatives
	case "raw":
		field = inRaw
		w.files += c.Size
	}
	if field == inAttachments || field == inAlternatives {
		w.parts++
		w.fields[field] += partHeader
	}
	w.fields[field] += c.Size + c.Labels
}

// list counts a list of addresses.
func (w *Weight) list(all []string) int {
	n := 0
	for _, s := range all {
		n += entryHeader + len(s)
	}
	w.entries += len(all)
	return n
}

// Sum is how many bytes the message has in all.
func (w *Weight) Sum() int {
	sum := 0
	for _, n := range w.fields {
		sum += n
	}
	return sum
}

// Fields is Sum without what MIME adds.
func (w *Weight) Fields() int { return w.Sum() - w.parts*partHeader }

// header is the sum without the bodies and the files.
func (w *Weight) header() int {
	return w.Sum() - w.fields[inBody] - w.fields[inAlternatives] - w.fields[inAttachments] - w.fields[inRaw]
}

// biggest names the biggest field.
func (w *Weight) biggest() string {
	names := [countFields]string{"subject", "body", "from_email", "to", "cc", "bcc", "reply_to", "headers", "message", "alternatives", "attachments", "raw"}
	biggest := 0
	for i, n := range w.fields {
		if n > w.fields[biggest] {
			biggest = i
		}
	}
	return names[biggest]
}

// partHeader is about what a MIME part costs beside its content.
const partHeader = 256

// octets writes a size for people: 26.3 MB.
func octets(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d octets", n)
}
