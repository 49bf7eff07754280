package wire

import (
	"cmp"
	"fmt"
	"slices"

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

// SetAside makes blobs of the contents that are bigger than threshold: none if that is
// negative. They stay in the message, and are left out when the payload is encoded.
func (p *Payload) SetAside(threshold int, hash func(content []byte) string) {
	for _, b := range parts(p.Message) {
		if threshold >= 0 && b.Size > threshold {
			b.Hash = hash(b.Of(p.Message))
			p.Blobs = append(p.Blobs, b)
		}
	}
}

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

// WithContents is a copy of the message whose blobs have these contents.
func (p *Payload) WithContents(content func(Blob) []byte) *mailer.EmailMessage {
	if len(p.Blobs) == 0 {
		return p.Message
	}
	m := *p.Message
	m.Attachments, m.Alternatives = slices.Clone(m.Attachments), slices.Clone(m.Alternatives)
	for _, b := range p.Blobs {
		b.Put(&m, content(b))
	}
	return &m
}

// Hashes are the hashes of the blobs, each once.
func (s *Meta) Hashes() []string {
	var hashes []string
	for _, b := range s.Blobs {
		if !slices.Contains(hashes, b.Hash) {
			hashes = append(hashes, b.Hash)
		}
	}
	return hashes
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
