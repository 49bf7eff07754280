package mailer

import "iter"

// Content is one of the contents of a message that can be big.
type Content struct {
	Field string // "attachments", "alternatives", "body" or "raw", as in JSON
	Index int    // in the list of that field
	Size  int    // bytes of the content as it is in the message, not encoded

	// Labels is how many bytes the content's type, file name and content ID have.
	Labels int
}

// Contents yields the contents of the message that can be big: those of all attachments, of all
// alternatives, the body and Raw, in this order, empty ones too. Whoever has to know what a
// message costs in memory or on disk sums their sizes.
func (m *EmailMessage) Contents() iter.Seq[Content] {
	return func(yield func(Content) bool) {
		for i, a := range m.Attachments {
			if !yield(Content{"attachments", i, len(a.Content), len(a.Mimetype) + len(a.Filename) + len(a.ContentID)}) {
				return
			}
		}
		for i, a := range m.Alternatives {
			if !yield(Content{"alternatives", i, len(a.Content), len(a.Mimetype)}) {
				return
			}
		}
		_ = yield(Content{Field: "body", Size: len(m.Body)}) && yield(Content{Field: "raw", Size: len(m.Raw)})
	}
}
