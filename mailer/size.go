package mailer

import "github.com/mailpouch/mailpouch/mailer/internal/mimewriter"

// EstimateSize returns about how many bytes WriteTo writes: enough for most messages, and never
// more than twice as many, except for small ones.
func (m *EmailMessage) EstimateSize() int {
	const header = 1 << 10
	n := header + len(m.signature) + m.headerSize() + mimewriter.EstimateRaw(m.Raw) + mimewriter.EstimateText(len(m.Body))
	for _, a := range m.Alternatives {
		n += header/2 + mimewriter.EstimateText(len(a.Content))
	}
	for _, a := range m.Attachments {
		n += header/2 + mimewriter.EstimateFile(len(a.Content))
	}
	return n
}

// headerSize is about how many bytes those header fields make that an author can make long. For a raw message it is
// those of WithTrace: its addresses are only in the envelope.
func (m *EmailMessage) headerSize() int {
	n := 0
	for _, f := range m.trace {
		n += len(f.Name) + mimewriter.EstimateHeader(f.Value) + len(": \r\n ")
	}
	if len(m.Raw) > 0 {
		return n
	}
	n += mimewriter.EstimateHeader(m.Subject)
	for _, list := range [...][]string{m.To, m.Cc, m.ReplyTo} {
		for _, addr := range list {
			n += mimewriter.EstimateHeader(addr) + len(",\r\n ")
		}
	}
	for name, value := range m.Headers {
		n += len(name) + mimewriter.EstimateHeader(value) + len(": \r\n ")
	}
	return n
}
