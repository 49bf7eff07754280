package tasks

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// The parts of a message whose content can be a blob.
const (
	partAttachment  = ""
	partAlternative = "alternative"
	partBody        = "body"
	partRaw         = "raw"
)

// parts are all contents of a message that may be too big for a payload, as blobs
// without their hashes.
func parts(m *mailer.EmailMessage) []blob {
	list := make([]blob, 0, 2+len(m.Attachments)+len(m.Alternatives))
	for i, a := range m.Attachments {
		list = append(list, blob{Part: partAttachment, Index: i, Size: len(a.Content)})
	}
	for i, a := range m.Alternatives {
		list = append(list, blob{Part: partAlternative, Index: i, Size: len(a.Content)})
	}
	return append(list, blob{Part: partBody, Size: len(m.Body)}, blob{Part: partRaw, Size: len(m.Raw)})
}

// of returns the blob's content as it is in a message.
func (b blob) of(m *mailer.EmailMessage) []byte {
	switch b.Part {
	case partAlternative:
		return []byte(m.Alternatives[b.Index].Content)
	case partBody:
		return []byte(m.Body)
	case partRaw:
		return m.Raw
	}
	return m.Attachments[b.Index].Content
}

// put gives the message that content, in lists that are its own.
func (b blob) put(m *mailer.EmailMessage, content []byte) {
	switch b.Part {
	case partAlternative:
		m.Alternatives[b.Index].Content = string(content)
	case partBody:
		m.Body = string(content)
	case partRaw:
		m.Raw = content
	default:
		m.Attachments[b.Index].Content = content
	}
}

// isText says whether a message has the content as a text.
func (b blob) isText() bool { return b.Part == partAlternative || b.Part == partBody }

// name is what a person calls the part.
func (b blob) name(m *mailer.EmailMessage) string {
	switch b.Part {
	case partAlternative:
		return fmt.Sprintf("alternative %d (%s)", b.Index+1, m.Alternatives[b.Index].Mimetype)
	case partBody:
		return "body"
	case partRaw:
		return "raw message"
	}
	return fmt.Sprintf("attachment %q", m.Attachments[b.Index].Filename)
}

// check refuses a blob that belongs to no part of the message.
func (b blob) check(m *mailer.EmailMessage) error {
	n := 1
	switch b.Part {
	case partAttachment:
		n = len(m.Attachments)
	case partAlternative:
		n = len(m.Alternatives)
	case partBody, partRaw:
	default:
		return fmt.Errorf("tasks: payload: blob of an unknown part, %q", b.Part)
	}
	if b.Index < 0 || b.Index >= n {
		return fmt.Errorf("tasks: payload: blob of %s %d, the message has %d", cmp.Or(b.Part, "attachment"), b.Index, n)
	}
	return nil
}

// withContents is a copy of the message whose blobs have these contents.
func (p *payload) withContents(content func(blob) []byte) *mailer.EmailMessage {
	if len(p.Blobs) == 0 {
		return p.Message
	}
	m := *p.Message
	m.Attachments, m.Alternatives = slices.Clone(m.Attachments), slices.Clone(m.Alternatives)
	for _, b := range p.Blobs {
		b.put(&m, content(b))
	}
	return &m
}
