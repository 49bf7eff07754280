package catcher

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// decodeTransfer undoes a Content-Transfer-Encoding (RFC 2045, 6). content is what could
// be read, and problem a text that begins with a comma, or "".
func decodeTransfer(encoding string, body []byte) (content []byte, problem string) {
	var r io.Reader
	switch strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
		return body, ""
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(base64Alphabet(body)))
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(body))
	default:
		return body, ", unknown transfer encoding " + encoding
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return content, ", broken " + strings.ToLower(encoding)
	}
	return content, ""
}

// base64Alphabet drops all other characters, which are to be ignored (RFC 2045, 6.8).
func base64Alphabet(body []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '+', r == '/', r == '=':
			return r
		}
		return -1
	}, body)
}

// decodeCharset returns the text as UTF-8. problem is as in decodeTransfer.
func decodeCharset(charset string, content []byte) (text, problem string) {
	switch strings.ToLower(charset) {
	case "", "utf-8", "us-ascii":
		if !utf8.Valid(content) {
			return string(content), ", not valid UTF-8"
		}
		return string(content), ""
	}
	encoding, err := htmlindex.Get(charset)
	if err != nil {
		return string(content), ", unknown charset " + charset
	}
	decoded, err := encoding.NewDecoder().Bytes(content)
	if err != nil {
		return string(content), ", broken " + charset
	}
	return string(decoded), ""
}

// decodeWords decodes the encoded words (RFC 2047) of a header field. One that cannot
// be decoded is left as it is.
func decodeWords(value string) string {
	decoded, err := wordDecoder().DecodeHeader(value)
	if err != nil {
		return value
	}
	return decoded
}

// wordDecoder knows the charsets that browsers know.
func wordDecoder() *mime.WordDecoder {
	return &mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
		encoding, err := htmlindex.Get(charset)
		if err != nil {
			return nil, err
		}
		return encoding.NewDecoder().Reader(r), nil
	}}
}

// oneLine shows what must not begin a new line.
func oneLine(s string) string {
	return strings.ReplaceAll(redact.Visible(s), "\n", `\x0a`)
}
