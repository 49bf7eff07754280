package mailer

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
	"github.com/mailpouch/mailpouch/mailer/internal/rawmessage"
)

// part is a node of the tree of a message (RFC 2046): a multipart of others, or a leaf with
// content.
type part struct {
	media    mimewriter.MediaType
	parts    []*part // of a multipart
	boundary string

	content     []byte
	inLines     bool // content is text: its line ends become CRLF
	encoding    mimewriter.Encoding
	disposition string // "attachment", "inline", or "" for a body
	filename    string
	contentID   string
}

func multipart(subtype string, parts ...*part) *part {
	return &part{media: mimewriter.MediaType{Value: "multipart/" + subtype}, parts: parts}
}

// bodyPart makes the part of the body or of an alternative.
func bodyPart(media mimewriter.MediaType, text string, cs charset.Charset) *part {
	p := &part{media: media}
	if !media.IsText() {
		p.content = []byte(text)
		p.settle()
		return p
	}
	if declared, ok := charset.Lookup(media.Param("charset")); ok && media.Param("charset") != "" {
		cs = declared
	}
	end := ""
	if text != "" && !strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\r") {
		end = "\r\n" // every line of a mail has an end (RFC 5322, 2.3), though the author may forget it
	}
	cs, p.content = cs.OrUTF8(text, end)
	p.inLines = true
	p.media = media.With("charset", cs.Name)
	p.encoding = mimewriter.Choose(p.content, true)
	return p
}

// attachmentPart makes the part of an attachment.
func attachmentPart(a Attachment, media mimewriter.MediaType, cs charset.Charset) *part {
	if media.Value == "" {
		media = mimewriter.GuessType(a.Filename, a.Content)
	}
	p := &part{
		media:       media,
		content:     a.Content,
		disposition: "attachment",
		filename:    a.Filename,
		contentID:   strings.TrimSuffix(strings.TrimPrefix(a.ContentID, "<"), ">"),
	}
	if media.IsText() {
		p.attachText(cs)
	}
	p.settle()
	return p
}

// attachText sets the charset of an attached text. The author gives the text in UTF-8, and it is
// sent in the charset of the message. If its type names another charset, the text is already in
// that one. If the text itself names one, it has its bytes: in another charset, or with other line
// ends, it would not be the same file. What is not text after all is left alone.
func (p *part) attachText(cs charset.Charset) {
	if name := p.media.Param("charset"); name != "" {
		declared, ok := charset.Lookup(name)
		if !ok || declared.IsUTF8() && !strings.EqualFold(name, "utf-8") {
			return // an unknown charset, or UTF-16 and the like: not text for mail
		}
		if !declared.IsUTF8() && !strings.EqualFold(declared.Name, "us-ascii") {
			p.inLines = true
			return
		}
		cs = declared
	} else if name, ok := charset.Named(p.media.Value, p.content); ok {
		if name != "" {
			p.media = p.media.With("charset", name)
		}
		return
	}
	if !utf8.Valid(p.content) || bytes.IndexByte(p.content, 0) >= 0 {
		p.media = mimewriter.MediaType{Value: mimewriter.OctetStream}
		return
	}
	if charset.IsUTF8Format(p.media.Value) {
		cs = charset.UTF8()
	}
	if !cs.IsUTF8() {
		cs, p.content = cs.OrUTF8(string(p.content), "")
	}
	p.inLines = true
	p.media = p.media.With("charset", cs.Name)
}

// settle chooses the encoding. An attached message must have none (RFC 2046, 5.2.1): if it cannot be
// written so, it is attached as a file of unknown type.
func (p *part) settle() {
	if !p.media.IsMessage() {
		p.encoding = mimewriter.Choose(p.content, p.inLines)
		return
	}
	if !mimewriter.IsSevenBit(p.content, true) {
		plain, ok := rawmessage.SevenBit(p.media, p.content)
		if !ok {
			p.media = mimewriter.MediaType{Value: mimewriter.OctetStream}
			p.encoding = mimewriter.Choose(p.content, false)
			return
		}
		p.content = plain
	}
	p.inLines = true
	p.encoding = mimewriter.SevenBit
}

// asText lets the texts in p be written as they are, where a terminal can show them.
func (p *part) asText() {
	for _, child := range p.parts {
		child.asText()
	}
	utf8 := p.media.IsText() && strings.EqualFold(p.media.Param("charset"), "utf-8")
	if p.parts == nil && p.inLines && utf8 && p.encoding != mimewriter.SevenBit && mimewriter.IsReadable(p.content) {
		p.encoding = mimewriter.EightBit
	}
}

// tree arranges body, alternatives and attachments as mail clients expect them:
//
//	mixed [ alternative [ text, related [ html, image... ] ], attachment... ]
//
// with only those levels that are needed. An empty body is left out if there is
// something else.
func (m *EmailMessage) tree(d *draft) *part {
	bodies := m.bodyParts(d)
	html := relateTo(bodies)
	inline, attached := m.attachmentParts(d, html >= 0)
	if len(inline) > 0 {
		bodies[html] = related(bodies[html], inline)
	}
	var root *part
	switch {
	case len(m.Alternatives) > 0:
		root = multipart("alternative", bodies...)
	case len(bodies) > 0:
		root = bodies[0]
	}
	if len(attached) == 0 {
		return root
	}
	mixed := multipart("mixed")
	if root != nil {
		mixed.parts = append(mixed.parts, root)
	}
	mixed.parts = append(mixed.parts, attached...)
	return mixed
}

// bodyParts makes the parts of the body and its alternatives.
func (m *EmailMessage) bodyParts(d *draft) []*part {
	bodies := make([]*part, 0, 1+len(m.Alternatives))
	if m.Body != "" || len(m.Alternatives) == 0 && len(m.Attachments) == 0 {
		bodies = append(bodies, bodyPart(d.body, m.Body, d.cs))
	}
	for i, a := range m.Alternatives {
		bodies = append(bodies, bodyPart(d.alternatives[i], a.Content, d.cs))
	}
	return bodies
}

// attachmentParts makes the parts of the attachments: those with a ContentID, if
// there is HTML that may show them, and the others.
func (m *EmailMessage) attachmentParts(d *draft, html bool) (inline, attached []*part) {
	for i, a := range m.Attachments {
		p := attachmentPart(a, d.attachments[i], d.cs)
		if html && p.contentID != "" {
			p.disposition = "inline"
			inline = append(inline, p)
		} else {
			attached = append(attached, p)
		}
	}
	return inline, attached
}

// relateTo returns the index of the body that inline parts belong to: the last HTML.
// It is -1 if there is none.
func relateTo(bodies []*part) int {
	for i, p := range slices.Backward(bodies) {
		if p.media.Value == "text/html" {
			return i
		}
	}
	return -1
}

// related puts inline parts beside their HTML (RFC 2387).
func related(html *part, inline []*part) *part {
	p := multipart("related", append([]*part{html}, inline...)...)
	p.media = p.media.With("type", html.media.Value)
	return p
}
