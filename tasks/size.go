package tasks

import (
	"fmt"
	"io"

	"github.com/mailpouch/mailpouch/mailer"
)

// CheckSize refuses a message that is bigger than QueueConfig.MaxMessageSize, as Enqueue
// does: an InvalidMessageError that names its biggest field.
func (q *Queue) CheckSize(m *mailer.EmailMessage) error {
	limit := q.cfg.MaxMessageSize
	field, raw := weigh(m)
	// Nothing grows to more than four times its size, and headers are small: most messages
	// need no closer look.
	const headers = 64 << 10
	if limit <= 0 || 4*raw+headers <= limit {
		return nil
	}
	size, err := m.WriteTo(io.Discard)
	if err != nil {
		return err
	}
	if size <= int64(limit) {
		return nil
	}
	return &mailer.InvalidMessageError{
		Field:  field,
		Reason: fmt.Sprintf("the whole message has %s, more than the %s of EMAIL_MAX_MESSAGE_SIZE", octets(size), octets(int64(limit))),
	}
}

// weigh returns the biggest field, and the octets of all before they are encoded.
func weigh(m *mailer.EmailMessage) (field string, sum int) {
	fields := []struct {
		name string
		size int
	}{{"body", len(m.Body)}, {"headers", 0}, {"to", 0}, {"alternatives", 0}, {"attachments", 0}, {"raw", len(m.Raw)}}
	for name, value := range m.Headers {
		fields[1].size += len(name) + len(value)
	}
	for _, address := range m.Recipients() {
		fields[2].size += len(address)
	}
	for _, a := range m.Alternatives {
		fields[3].size += partHeader + len(a.Content)
	}
	for _, a := range m.Attachments {
		fields[4].size += partHeader + len(a.Content)
	}
	biggest := fields[0]
	for _, f := range fields {
		sum += f.size
		if f.size > biggest.size {
			biggest = f
		}
	}
	return biggest.name, sum
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
