package mailer_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/ianaindex"

	"github.com/mailpouch/mailpouch/mailer"
)

// message is a small complete message, changed by the functions given.
func message(change ...func(m *mailer.EmailMessage)) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: "Subject", Body: "Content\n", FromEmail: "from@example.com", To: []string{"to@example.com"},
		MessageID: "<fixed@example.com>", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Headers: map[string]string{},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func withHeader(name, value string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Headers[name] = value }
}

func withAttachment(a mailer.Attachment) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Attachments = append(m.Attachments, a) }
}

func withAlternative(content, mimetype string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.AttachAlternative(content, mimetype) }
}

func withBody(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Body = s }
}

func render(t testing.TB, m *mailer.EmailMessage) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rawHeader returns the lines of a field, as they were written, without its name.
func rawHeader(t testing.TB, rendered, name string) string {
	t.Helper()
	header, _, _ := strings.Cut(rendered, "\r\n\r\n")
	for field := range strings.SplitSeq(strings.ReplaceAll(header, "\r\n ", "\n "), "\r\n") {
		if value, ok := strings.CutPrefix(field, name+":"); ok {
			return strings.TrimPrefix(strings.ReplaceAll(value, "\n ", "\r\n "), " ")
		}
	}
	return ""
}

// node is a part as Go's own packages read it.
type node struct {
	header   textproto.MIMEHeader
	media    string
	params   map[string]string
	parts    []node
	encoding string
	content  string // decoded
}

func parse(t testing.TB, rendered string) node {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(rendered))
	if err != nil {
		t.Fatal(err)
	}
	return parsePart(t, textproto.MIMEHeader(m.Header), m.Body)
}

func parsePart(t testing.TB, header textproto.MIMEHeader, body io.Reader) node {
	t.Helper()
	media, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	n := node{header: header, media: media, params: params, encoding: header.Get("Content-Transfer-Encoding")}
	if !strings.HasPrefix(media, "multipart/") {
		n.content = decode(t, n.encoding, body)
		return n
	}
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n.parts = append(n.parts, parsePart(t, p.Header, p))
	}
}

func decode(t testing.TB, encoding string, body io.Reader) string {
	t.Helper()
	switch encoding {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "7bit", "8bit":
	default:
		t.Fatalf("encoding %q", encoding)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// tree is the types of a part and those in it: "mixed[text/plain application/pdf]".
func (n node) tree() string {
	subtype, ok := strings.CutPrefix(n.media, "multipart/")
	if !ok {
		return n.media
	}
	var parts []string
	for _, p := range n.parts {
		parts = append(parts, p.tree())
	}
	return subtype + "[" + strings.Join(parts, " ") + "]"
}

// leaf follows the indexes into the tree.
func (n node) leaf(path ...int) node {
	for _, i := range path {
		n = n.parts[i]
	}
	return n
}

// wantBadInput checks the kind of an error and the field that it names.
func wantBadInput(t testing.TB, err error, field string, header bool) {
	t.Helper()
	var bad *mailer.BadHeaderError
	var invalid *mailer.InvalidMessageError
	switch {
	case errors.As(err, &bad) && header:
		if bad.Field != field {
			t.Errorf("got field %q, want %q", bad.Field, field)
		}
	case errors.As(err, &invalid) && !header:
		if invalid.Field != field {
			t.Errorf("got field %q, want %q", invalid.Field, field)
		}
	default:
		t.Errorf("got %v (%T), want field %q, BadHeaderError %v", err, err, field, header)
	}
}

// charsetReader decodes text for a mime.WordDecoder.
func charsetReader(charset string, r io.Reader) (io.Reader, error) {
	enc, err := ianaindex.MIME.Encoding(charset)
	if err != nil {
		return nil, err
	}
	return enc.NewDecoder().Reader(r), nil
}
