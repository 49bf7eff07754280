package catcher

import (
	"cmp"
	"mime"
	"net/mail"
	"strings"
)

// Decoded is a message decoded for people. Nothing in it is safe to print as it is.
type Decoded struct {
	Header Header
	Parts  []Part // the leaves of the tree of parts, in their order
}

// Header is the fields of a header in their order.
type Header []Field

// Field is one field of the header: unfolded, its encoded words decoded.
type Field struct{ Name, Value string }

// Part is a text or a file.
type Part struct {
	MediaType string // in lower case
	Filename  string // or ""
	ContentID string // without its angle brackets, or "": by it HTML shows the part (cid:)
	Text      bool   // to be read where it stands, and not a file
	Content   []byte // of a text as UTF-8, of a file as it was attached
	Problem   string // what could not be decoded, in words that begin with a comma, or ""
}

// Get returns the first field of that name, in any letter case, or "".
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Decode decodes a message. It refuses none: a broken part is shown as far as it goes.
func Decode(raw []byte) Decoded {
	header, body := split(raw)
	d := Decoded{Header: header.decode()}
	d.read(header, body, 0)
	return d
}

// DecodeHeader decodes the header alone.
func DecodeHeader(raw []byte) Header {
	header, _ := split(raw)
	return header.decode()
}

func (f fields) decode() Header {
	h := make(Header, len(f))
	for i, field := range f {
		h[i] = Field{Name: field.name, Value: decodeWords(field.value)}
	}
	return h
}

// maxDepth is how deep multiparts may be nested: more is no honest message.
const maxDepth = 20

// read adds what one node of the tree of parts has (RFC 2045, 2.4).
func (d *Decoded) read(header fields, body []byte, depth int) {
	mediatype, params := header.contentType()
	if boundary := params["boundary"]; strings.HasPrefix(mediatype, "multipart/") && boundary != "" && depth < maxDepth {
		for _, part := range parts(body, boundary) {
			h, b := split(part)
			if mediatype == "multipart/digest" && h.get("Content-Type") == "" {
				h = append(h, field{name: "Content-Type", value: "message/rfc822"}) // RFC 2046, 5.1.5
			}
			d.read(h, b, depth+1)
		}
		return
	}
	p := Part{MediaType: mediatype}
	p.Content, p.Problem = decodeTransfer(header.get("Content-Transfer-Encoding"), body)
	disposition, dparams, _ := mime.ParseMediaType(header.get("Content-Disposition"))
	p.ContentID = strings.Trim(header.get("Content-ID"), "<> \t")
	p.Filename = decodeWords(cmp.Or(dparams["filename"], params["name"]))
	if strings.HasPrefix(mediatype, "text/") && disposition != "attachment" && p.Filename == "" {
		text, strange := decodeCharset(params["charset"], p.Content)
		p.Text, p.Content, p.Problem = true, []byte(text), p.Problem+strange
	}
	d.Parts = append(d.Parts, p)
}

// Addresses returns the addresses in the fields of that name, their names decoded. What cannot be read is one address
// that has the whole field as its name.
func Addresses(raw []byte, name string) []mail.Address {
	header, _ := split(raw)
	var all []mail.Address
	parser := mail.AddressParser{WordDecoder: wordDecoder()}
	for _, f := range header {
		if !strings.EqualFold(f.name, name) || f.value == "" {
			continue
		}
		list, err := parser.ParseList(f.value)
		if err != nil {
			all = append(all, mail.Address{Name: decodeWords(f.value)})
		}
		for _, a := range list {
			all = append(all, *a)
		}
	}
	return all
}
