package wire

import (
	"cmp"
	"fmt"

	"github.com/mailpouch/mailpouch/mailer"
)

// Blob names the content of one part of a message that is not in the payload: it is too big,
// and stored beside the queue (internal/blobstore).
type Blob struct {
	Part  string `json:"part,omitempty"` // one of the parts below
	Index int    `json:"attachment"`     // of the attachment, or of the alternative
	Hash  string `json:"sha256"`         // of the content, in hex
	Size  int    `json:"size"`           // bytes
}

// The parts of a message whose content can be a blob.
const (
	PartAttachment  = ""
	PartAlternative = "alternative"
	PartBody        = "body"
	PartRaw         = "raw"
)

// parts are all contents of a message that may be too big for a payload, as blobs
// without their hashes.
func parts(m *mailer.EmailMessage) []Blob {
	list := make([]Blob, 0, 2+len(m.Attachments)+len(m.Alternatives))
	for c := range m.Contents() {
		list = append(list, Blob{Part: partOf(c.Field), Index: c.Index, Size: c.Size})
	}
	return list
}

// partOf is the part of a field of a message.
func partOf(field string) string {
	switch field {
	case "alternatives":
		return PartAlternative
	case "body":
		return PartBody
	case "raw":
		return PartRaw
	}
	return PartAttachment
}

// Of returns the blob's content as it is in a message.
func (b Blob) Of(m *mailer.EmailMessage) []byte {
	switch b.Part {
	case PartAlternative:
		return []byte(m.Alternatives[b.Index].Content)
	case PartBody:
		return []byte(m.Body)
	case PartRaw:
		return m.Raw
	}
	return m.Attachments[b.Index].Content
}

// Put gives the message that content, in lists that are its own.
func (b Blob) Put(m *mailer.EmailMessage, content []byte) {
	switch b.Part {
	case PartAlternative:
		m.Alternatives[b.Index].Content = string(content)
	case PartBody:
		m.Body = string(content)
	case PartRaw:
		m.Raw = content
	default:
		m.Attachments[b.Index].Content = content
	}
}

// IsText reports whether a message has the content as a text.
func (b Blob) IsText() bool { return b.Part == PartAlternative || b.Part == PartBody }

// Name is what a person calls the part.
func (b Blob) Name(m *mailer.EmailMessage) string {
	switch b.Part {
	case PartAlternative:
		return fmt.Sprintf("alternative %d (%s)", b.Index+1, m.Alternatives[b.Index].Mimetype)
	case PartBody:
		return "body"
	case PartRaw:
		return "raw message"
	}
	return fmt.Sprintf("attachment %q", m.Attachments[b.Index].Filename)
}

// check refuses a blob that belongs to no part of the message.
func (b Blob) check(m *mailer.EmailMessage) error {
	n := 1
	switch b.Part {
	case PartAttachment:
		n = len(m.Attachments)
	case PartAlternative:
		n = len(m.Alternatives)
	case PartBody, PartRaw:
	default:
		return fmt.Errorf("tasks: payload: blob of an unknown part, %q", b.Part)
	}
	if b.Index < 0 || b.Index >= n {
		return fmt.Errorf("tasks: payload: blob of %s %d, the message has %d", cmp.Or(b.Part, "attachment"), b.Index, n)
	}
	return nil
}
