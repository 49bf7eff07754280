package mailer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// EmailMessage is one mail. The zero value is an empty text message; every field
// may be changed until the message is handed over. It holds no connection and no
// result. Django's EmailMultiAlternatives is this same type.
//
// Address fields take a bare address (fred@example.com) or one with a display
// name (Fred <fred@example.com>).
type EmailMessage struct {
	Subject   string
	Body      string
	FromEmail string // one address: envelope sender, and the From header unless Headers has one
	To        []string
	Cc        []string
	Bcc       []string // in the envelope, never in the header
	ReplyTo   []string

	// Headers adds fields to the header. From, To, Cc, Reply-To, Date and
	// Message-ID, in any letter case, replace the generated field and leave the
	// envelope alone; Bcc adds blind copies and Return-Path sets the envelope
	// sender, and neither is rendered. A From of several authors makes FromEmail
	// the Sender, unless Headers has one (RFC 5322, 3.6.2). Fields of addresses,
	// message IDs, dates or URLs have to be what their names say.
	Headers map[string]string

	// Raw, if not empty, is the finished message, header and body (RFC 5322). Its body is
	// sent as it is, with CRLF for any line end. In its header Bcc and Return-Path are left
	// out, From, Date and Message-ID are added if missing, and bytes above 127 are encoded.
	// A body with lines of more than 998 octets (RFC 5322, 2.1.1) is encoded anew; if the
	// message is signed, it is refused instead. FromEmail, To, Cc, Bcc and a Return-Path in
	// Headers are only the envelope; ParseRaw reads it from the message. All other fields
	// that would be in header or body have to be empty.
	Raw []byte

	Attachments  []Attachment
	Alternatives []Alternative

	// ListUnsubscribe says how the recipient leaves the list that the message was sent to. It excludes Raw, which says that itself.
	ListUnsubscribe ListUnsubscribe

	// VERP, if not empty, is the address that failed deliveries are reported to, and the sender of the envelope is made of
	// it and the recipient (variable envelope return path): bounces@example.org and ann@example.com make
	// bounces+ann=example.com@example.org, so that the report says by its address whom it is about. VERPRecipient reads
	// that. It has to be the message's only recipient, and Headers may have no Return-Path. Where the address would be longer than every server
	// takes (64 bytes before the @, RFC 5321, 4.5.3.1.1), or the recipient's is quoted, the sender is VERP itself.
	VERP string

	ContentSubtype string // of the body: "plain" if empty, or "html" and the like
	Charset        string // of body, text parts and encoded header words: "utf-8" if empty

	// MessageID and Date are fixed when the message is handed over and never when
	// it is rendered, so that every try sends the same bytes and a receiver can
	// recognise a second copy. WithDefaults fills them in. MessageID is left@right, with
	// or without angle brackets around it.
	MessageID string
	Date      time.Time

	// FailSilently gives the message one try; a failure is logged, not returned.
	FailSilently bool

	only  []string // the only recipients of the envelope (WithRecipients); nil: all
	trace []Field  // in front of the header (WithTrace)

	signature []byte // whole fields in front of all others (WithSignature)
}

// Field is a field of a header.
type Field struct{ Name, Value string }

// ListUnsubscribe says how the recipient leaves the list that a message was sent to. Mail programs show a button for it. It
// makes the fields List-Unsubscribe (RFC 2369, 3.2) and, with OneClick, List-Unsubscribe-Post (RFC 8058), and Precedence: bulk
// unless Headers has a Precedence, so that no answering machine replies. The zero value makes none.
//
// A one-click URL names the recipient by something that cannot be guessed, and takes a POST with the body
// List-Unsubscribe=One-Click, without cookies and without asking anything. Receivers use it only if the message has a
// DKIM signature that covers both fields (RFC 8058, 4).
type ListUnsubscribe struct {
	URL      string // https:// or http://, for OneClick https:// (RFC 8058, 3.1)
	Mailto   string // an address, or a mailto: URL with a subject (RFC 6068)
	OneClick bool   // a POST to URL is all that it takes
}

// Attachment is a file that travels with a message, or, with a ContentID, an image
// that its HTML shows as cid:ContentID. A file of text in UTF-8 travels in the charset of the
// message, with CRLF for its line ends, unless it or its Mimetype names a charset. All other
// files keep their bytes.
type Attachment struct {
	Filename  string `json:"filename"`
	Content   []byte `json:"content"`
	Mimetype  string `json:"mimetype"`   // guessed from Filename, then from Content, if empty
	ContentID string `json:"content_id"` // without angle brackets
}

// Alternative is the body in another form, such as text/html. The last one is
// the preferred one (RFC 2046, 5.1.4).
type Alternative struct {
	Content  string `json:"content"`
	Mimetype string `json:"mimetype"`
}

// Attach adds a file. An empty mimetype is guessed when the message is rendered.
func (m *EmailMessage) Attach(filename string, content []byte, mimetype string) {
	m.Attachments = append(m.Attachments, Attachment{Filename: filename, Content: content, Mimetype: mimetype})
}

// AttachFile reads the file at path now and adds it under its base name.
func (m *EmailMessage) AttachFile(path, mimetype string) error {
	content, err := os.ReadFile(path) //nolint:gosec // reading the file that the caller names is the purpose
	if err != nil {
		return fmt.Errorf("mailer: attach: %w", err)
	}
	m.Attach(filepath.Base(path), content, mimetype)
	return nil
}

// AttachAlternative adds the body in another form, such as text/html.
func (m *EmailMessage) AttachAlternative(content, mimetype string) {
	m.Alternatives = append(m.Alternatives, Alternative{Content: content, Mimetype: mimetype})
}

// BodyContains reports whether text is in the body and in every alternative that is text. It is
// for tests, as Django's body_contains.
func (m *EmailMessage) BodyContains(text string) bool {
	for _, a := range m.Alternatives {
		isText := strings.HasPrefix(strings.ToLower(a.Mimetype), "text/")
		if isText && !strings.Contains(a.Content, text) {
			return false
		}
	}
	return strings.Contains(m.Body, text)
}
